"""The particle engine: unbiased resampling, weights that nothing poisons, evidence, chunks; twists
and matrix roots against dense ones."""

from __future__ import annotations

import math

import pytest
import torch
from cases import bed, mixture
from reference import F64

import posteriori as po
from posteriori.linalg import root_product
from posteriori.methods.smc import particles
from posteriori.methods.smc.twists import view
from posteriori.rng import Streams

SCHEMES = ("systematic", "stratified", "residual", "multinomial")


def counts(w, scheme, repeats=4000, seed=0):
    """How often each of the particles w (N,) is chosen, in each repeat: (repeats, N)."""
    chosen = particles.indices(w.expand(repeats, -1), Streams(seed, range(repeats)), scheme)
    return torch.nn.functional.one_hot(chosen, len(w)).sum(1).double()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_copies_each_particle_n_w_times_on_average(scheme):
    w = torch.tensor([0.0, 0.02, 0.4, 0.13, 0.0, 0.25, 0.2, 0.0], dtype=F64)
    got = counts(w, scheme)
    assert bool((got.sum(1) == 8).all())
    error = got.std(0) / 4000**0.5
    assert bool(((got.mean(0) - 8 * w).abs() <= 4.5 * error + 1e-12).all())
    # What weighs nothing is never chosen.
    assert float(got[:, w == 0].max()) == 0
    if scheme in ("systematic", "residual"):
        assert bool((got >= (8 * w).floor()).all())
    if scheme == "systematic":
        assert bool((got <= (8 * w).ceil()).all())
    for which in range(8):
        alone = counts(torch.eye(8, dtype=F64)[which], scheme, 50)
        assert bool((alone[:, which] == 8).all())
    even = counts(torch.full((3,), 1 / 3, dtype=F64), scheme, 50)
    assert bool((even == 1).all()) or scheme in ("stratified", "multinomial")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_that_round_below_one_still_give_an_ancestor_to_each(scheme):
    class Last:
        def uniform(self, count):
            return torch.full((1, count), 1 - 2**-53, dtype=F64)

    w = torch.full((1, 1000), 0.001, dtype=torch.float32).double() * (1 - 1e-9)
    w[0, -3:] = 0
    chosen = particles.indices(w, Last(), scheme)
    assert int(chosen.max()) <= 996
    assert int(chosen.min()) >= 0


def cloud_of(log_w, groups=1, dim=2):
    n = len(log_w) // groups
    x = torch.arange(len(log_w) * dim, dtype=F64).view(-1, dim)
    return particles.weigh(particles.start(x, n), log_w)


def test_a_constant_in_all_weights_moves_the_evidence_alone():
    log_w = torch.randn(12, dtype=F64, generator=torch.Generator().manual_seed(0))
    outs = []
    for constant in (0.0, -4000.0, 3000.0):
        out, source, info = particles.resample_particles(
            cloud_of(log_w + constant, 2), Streams(1, range(2), 6), 0.99, "systematic"
        )
        alone = cloud_of(log_w, 2).clouds.logsumexp(1) - math.log(6)
        assert bool((particles.log_evidence(out) - constant - alone).abs().max() < 1e-9)
        outs.append((source, info["ess"]))
    for source, ess in outs[1:]:
        assert torch.equal(source, outs[0][0])
        torch.testing.assert_close(ess, outs[0][1])
    w = log_w.view(2, 6).exp()
    torch.testing.assert_close(outs[0][1].view(2, 6)[:, 0], w.sum(1) ** 2 / w.square().sum(1) / 6)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.2])
def test_a_power_of_the_weights_keeps_every_weighted_mean(power):
    """E of sum w' f over the children is sum w f, whatever the power; with 0.5 the largest weights
    shrink to their root."""
    groups, n = 4000, 6
    one = torch.tensor([0.0, 3.0, -1.0, 1.0, -math.inf, 0.5], dtype=F64)
    cloud = cloud_of(one.repeat(groups), groups)
    out, source, _ = particles.resample_particles(
        cloud, Streams(5, range(groups), n), 1.0, "systematic", power=power
    )
    torch.testing.assert_close(out.log_z, cloud.clouds.logsumexp(1) - math.log(n))
    weights = (out.clouds + out.log_z[:, None]).exp()
    counts = torch.zeros(groups, n, dtype=F64).scatter_add(1, source.view(groups, n) % n, weights)
    error = counts.std(0) / groups**0.5
    assert bool(((counts.mean(0) - one.exp()).abs() <= 4 * error + 1e-9).all())
    assert bool((out.clouds == 0).all()) == (power == 1)
    children = (source.view(groups, n) % n == 1).double().sum(1).mean()
    assert float(children) == pytest.approx(n * float((power * one).softmax(0)[1]), rel=0.02)


def test_no_particle_poisons_its_cloud_and_a_dead_cloud_is_marked():
    nan, inf = math.nan, math.inf
    log_w = torch.tensor(
        [0.0, nan, -inf, 0.0, -inf, -inf, -inf, -inf, 1.0, 1.0, 1.0, 1.0], dtype=F64
    )
    for share in (0.0, 0.9):
        out, source, info = particles.resample_particles(
            cloud_of(log_w, 3), Streams(0, range(3), 4), share, "systematic"
        )
        assert bool(out.x[4:8].isnan().all())
        assert bool(out.x[:4].isfinite().all())
        assert bool(out.x[8:].isfinite().all())
        torch.testing.assert_close(
            info["ess"].view(3, 4)[:, 0], torch.tensor([0.5, 0.0, 1.0], dtype=F64)
        )
        assert particles.log_evidence(out).tolist() == pytest.approx([math.log(0.5), -inf, 1.0])
        again = particles.weigh(out, torch.ones(12, dtype=F64))
        assert particles.log_evidence(again).tolist() == pytest.approx(
            [math.log(0.5) + 1, -inf, 2.0]
        )
        assert set(source[:4].tolist()) == {0, 3} or share == 0
        # Only what falls below the share is resampled; its weights are kept otherwise.
        assert torch.equal(source[8:], torch.arange(8, 12))
    found = float(
        particles.weigh(
            cloud_of(torch.full((2,), -inf, dtype=F64)), torch.full((2,), inf, dtype=F64)
        ).log_w.max()
    )
    assert found == -inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_evidence_of_a_cloud_is_unknown_where_a_broken_weight_was_its_last(bad):
    """Of 0, for images that cannot give y, the mean over clouds must know; of numbers that broke it
    must not."""
    inf = math.inf
    log_w = torch.tensor([-inf, bad, -inf, -inf, -inf, -inf, 0.0, bad, 0.0], dtype=F64)
    cloud = cloud_of(log_w, 3)
    for out in (
        cloud,
        particles.resample_particles(cloud, Streams(0, range(3), 3), 0.9, "systematic")[0],
    ):
        unknown, dead, sound = particles.log_evidence(
            particles.weigh(out, torch.ones(9, dtype=F64))
        ).tolist()
        assert math.isnan(unknown)
        assert dead == -inf
        assert sound == pytest.approx(math.log(2 / 3) + 1)


def test_ancestors_are_counted_since_the_start_and_order_follows_the_line():
    log_w = torch.tensor([3.0, -20.0, 2.0, -20.0, -20.0, 1.0], dtype=F64)
    out, source, info = particles.resample_particles(
        cloud_of(log_w), Streams(0, [0], 6), 1.0, "systematic"
    )
    assert float(info["ancestors"][0]) == len(source.unique()) == len(out.first.unique())
    for u in range(20):
        along = torch.randn(6, dtype=F64, generator=torch.Generator().manual_seed(u))
        _, source, _ = particles.resample_particles(
            cloud_of(log_w), Streams(u, [0], 6), 1.0, "systematic", along
        )
        assert bool((along[source].diff() >= 0).all())
        got = source.bincount(minlength=6)
        want = 6 * log_w.softmax(0)
        assert bool((got >= want.floor()).all())
        assert bool((got <= want.ceil()).all())


def test_collected_samples_are_in_random_order_and_single_ones_follow_the_weights():
    log_w = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64).log().repeat(4000)
    cloud = cloud_of(log_w, 4000, 1)
    rows, weights = particles.collect(cloud, Streams(0, range(4000), 4), 1, "systematic")
    assert rows.shape == (4000, 1)
    assert float(weights.abs().max()) == 0
    share = (rows[:, 0].long() % 4).bincount(minlength=4) / 4000
    assert float((share - torch.tensor([0.1, 0.2, 0.3, 0.4])).abs().max()) < 4.5 * 0.5 / 4000**0.5
    # Equal weights are not drawn again, which would double some of them.
    even, _ = particles.collect(
        cloud_of(torch.full((8,), -3.0, dtype=F64), 2, 1), Streams(0, range(2), 4), 4, "multinomial"
    )
    assert sorted(even[:, 0].tolist()) == list(range(8))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_evidence_of_a_linear_gaussian_chain_is_unbiased_for_four_particles(scheme, share):
    """h_t = 0.9 h_(t-1) + 0.6 z, y_t = h_t + 0.7 n, against the dense Gaussian density of all y;
    the bootstrap filter."""
    y, T, groups, n = torch.tensor([0.5, -0.7, 1.1, 0.4, 0.9], dtype=F64), 5, 3000, 4
    L = torch.tensor(
        [[0.9 ** (t - k) * 0.6 if k <= t else 0.0 for k in range(T)] for t in range(T)], dtype=F64
    )
    start = torch.tensor([0.9 ** (t + 1) for t in range(T)], dtype=F64)
    covariance = L @ L.T + torch.outer(start, start) + 0.49 * torch.eye(T, dtype=F64)
    truth = float(
        torch.distributions.MultivariateNormal(torch.zeros(T, dtype=F64), covariance).log_prob(y)
    )
    rng = Streams(2, range(groups), n)
    cloud = particles.start(rng.normal(torch.zeros(groups * n, 1, dtype=F64)), n)
    for t in range(T):
        x = 0.9 * cloud.x + 0.6 * rng.normal(cloud.x)
        cloud = particles.weigh(
            particles.moved(cloud, x), po.noise.Gaussian(0.7).log_prob(y[t : t + 1], x)
        )
        if t < T - 1:
            cloud, _, _ = particles.resample_particles(cloud, rng, share, scheme)
    log_z = particles.log_evidence(cloud)
    ratio = (log_z - truth).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / groups**0.5
    assert float(ratio.std()) / groups**0.5 < 0.03
    assert float(log_z.mean()) < truth


def test_chunks_change_nothing_and_are_no_larger_than_asked():
    sizes = []

    def look(x, w):
        sizes.append(len(x))
        return 2 * x, x.sum(1) + w

    x, w = torch.arange(22, dtype=F64).view(11, 2), torch.arange(11, dtype=F64)
    whole = particles.in_chunks(look, None, x, w)
    for rows in (1, 4, 11, 50):
        sizes.clear()
        assert all(
            torch.equal(a, b)
            for a, b in zip(particles.in_chunks(look, rows, x, w), whole, strict=True)
        )
        assert max(sizes) <= rows
        assert sum(sizes) == 11


def test_the_leading_direction_is_the_principal_one_of_each_cloud():
    g = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(torch.randn(3, 5, dtype=F64, generator=g), dim=1)
    far = torch.randn(3, 40, 1, dtype=F64, generator=g)
    x = (7 * far * axes[:, None] + 0.1 * torch.randn(3, 40, 5, dtype=F64, generator=g) + 3).flatten(
        0, 1
    )
    axis, along = particles.leading(x, 40)
    assert float((axis * axes).sum(1).abs().min()) > 0.999
    v = x.view(3, 40, 5)
    torch.testing.assert_close(
        along.view(3, 40), ((v - v.mean(1, keepdim=True)) * axis[:, None]).sum(2)
    )
    axis, along = particles.leading(torch.ones(8, 5, dtype=F64), 4)
    assert bool(axis.isfinite().all())
    assert float(along.abs().max()) == 0


# MATRIX ROOTS
# --------------------------------------------------------------------------------------------------


def root(values, b, iterations, seed=0):
    """root_product and the dense answer, for a symmetric matrix with these eigenvalues."""
    d = len(values)
    Q = torch.linalg.qr(
        torch.randn(d, d, dtype=F64, generator=torch.Generator().manual_seed(seed))
    )[0]
    M, R = (Q * values) @ Q.T, (Q * values.clamp(min=0).sqrt()) @ Q.T
    return root_product(lambda v: v @ M, b, iterations=iterations), b @ R


def test_root_products_are_those_of_the_dense_root():
    b = torch.randn(5, 8, dtype=F64, generator=torch.Generator().manual_seed(1))
    b[3] = 0
    for iterations in (8, 13):
        torch.testing.assert_close(
            *root(torch.linspace(0.05, 3, 8, dtype=F64), b, iterations), rtol=1e-10, atol=1e-12
        )
        torch.testing.assert_close(
            *root(torch.tensor([0, 0, 0, 0, 1, 2, 2, 5.0], dtype=F64), b, iterations),
            rtol=1e-7,
            atol=1e-7,
        )
        torch.testing.assert_close(*root(torch.zeros(8, dtype=F64), b, iterations))
        # Negative eigenvalues count as 0.
        torch.testing.assert_close(
            *root(torch.tensor([-0.5, -0.1, 0.2, 0.5, 1, 2, 3, 4], dtype=F64), b, iterations),
            rtol=1e-8,
            atol=1e-9,
        )
    # Two different eigenvalues: two steps; a row in a smaller space than its neighbours.
    torch.testing.assert_close(
        *root(torch.tensor([1, 1, 1, 1, 4, 4, 4, 4.0], dtype=F64), b, 2), rtol=1e-10, atol=1e-12
    )
    diagonal = torch.linspace(1, 4, 8, dtype=F64)
    rows = torch.cat([torch.eye(8, dtype=F64)[:1], b])
    torch.testing.assert_close(
        root_product(lambda v: v * diagonal, rows, iterations=8), rows * diagonal.sqrt()
    )
    error = [
        float((lambda p: (p[0] - p[1]).norm())(root(torch.linspace(0.3, 3, 8, dtype=F64), b, k)))
        for k in (1, 3, 5)
    ]
    assert error[0] > 5 * error[1] > 25 * error[2] > 0


def test_root_products_of_shaped_and_complex_rows():
    b = torch.randn(2, 3, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    diagonal = torch.linspace(1, 4, 6, dtype=F64).view(3, 2)
    torch.testing.assert_close(
        root_product(lambda v: v * diagonal, b, iterations=12), b * diagonal.sqrt()
    )


# TWISTS
# --------------------------------------------------------------------------------------------------


def twisted(kind, post, x, sigma, at=None):
    """log N(y; A D(x), V) with V written out densely, S that of ``at`` (x itself by default)."""
    A, y, prior = po.operators.matrix(post.likelihood.A), post.likelihood.y, post.prior
    out = []
    for row, fixed in zip(x, x if at is None else at, strict=True):
        J = torch.autograd.functional.jacobian(lambda v: prior.denoise(v[None], sigma)[0], fixed)
        S = {
            "moments": sigma**2 * J,
            "pigdm": prior.know().max_variance(sigma) * torch.eye(len(row), dtype=F64),
            "narrow": 0 * J,
        }
        V = (
            torch.diag((A @ (sigma**2 * J) @ A.T).sum(1).clamp(min=0))
            if kind == "row sums"
            else A @ S[kind] @ A.T
        )
        V = V + post.likelihood.std**2 * torch.eye(len(y), dtype=F64)
        out.append(
            torch.distributions.MultivariateNormal(
                A @ prior.denoise(row[None], sigma)[0], V
            ).log_prob(y)
        )
    return torch.stack(out)


def mixed(sigma_y=0.4):
    prior = mixture()
    A = po.operators.Dense(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    return po.Posterior(
        prior, po.Likelihood(A(prior.sample(1, 7))[0], A, po.noise.Gaussian(sigma_y))
    )


@pytest.mark.parametrize("kind", ["moments", "row sums", "pigdm", "narrow"])
def test_twists_are_the_dense_formulas_and_their_gradients(kind):
    for post in (bed("general", sigma=0.3), mixed()):
        for sigma in (4.0, 0.8):
            level = torch.tensor(sigma, dtype=F64)
            x = post.prior.start(
                torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(2)),
                level,
            )
            seen = view(post, x, level, kind)
            torch.testing.assert_close(seen.x0, post.prior.denoise(x, level))
            torch.testing.assert_close(seen.log_p, twisted(kind, post, x, level))
            # The gradient with V held fixed.
            d = torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(4))
            h = 1e-5
            slope = (
                twisted(kind, post, x + h * d, level, x) - twisted(kind, post, x - h * d, level, x)
            ) / (2 * h)
            torch.testing.assert_close((seen.gradient * d).sum(1), slope, rtol=1e-5, atol=1e-6)


def test_the_moments_twist_is_the_truth_for_a_gaussian_prior():
    post, level = bed("general", sigma=0.3), torch.tensor(1.3, dtype=F64)
    A, C = po.operators.matrix(post.likelihood.A), post.prior.covariance
    x = post.prior.start(
        torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(2)), level
    )
    K = C @ torch.linalg.inv(C + level**2 * torch.eye(6, dtype=F64))
    V = A @ (C - K @ C) @ A.T + 0.09 * torch.eye(4, dtype=F64)
    mean = (post.prior.mean + (x - post.prior.mean) @ K.T) @ A.T
    truth = torch.distributions.MultivariateNormal(mean, V).log_prob(post.likelihood.y)
    torch.testing.assert_close(view(post, x, level, "moments").log_p, truth)


def test_the_matrix_root_is_exact_when_its_basis_stays_orthogonal():
    """A hundred eigenvalues over four decades, as many iterations: without a second
    orthogonalisation 1.5 per cent are lost."""
    s = torch.logspace(0, -4, 100, dtype=F64)
    b = torch.randn(3, 100, dtype=F64, generator=torch.Generator().manual_seed(0))
    for dtype, rtol in ((F64, 1e-10), (torch.float32, 1e-4)):
        M, v = s.to(dtype), b.to(dtype)
        gap = root_product(lambda u, M=M: M * u, v, iterations=100) - M.sqrt() * v
        assert float((gap.norm(dim=1) / (M.sqrt() * v).norm(dim=1)).max()) < rtol
