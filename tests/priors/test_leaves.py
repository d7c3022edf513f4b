"""A prior at other parameters is the prior constructed with them; its derivative by them is that of
the denoiser, row by row."""

from __future__ import annotations

import pytest
import torch
from cases import full_gaussian, mixture
from reference import F64, draw
from torch import nn

import posteriori as po
from posteriori.counting import CountedPrior, Counter
from posteriori.methods.explicit.dds import DDS
from posteriori.methods.transitions import DDIM, renoise
from posteriori.priors import ComplexImages, GreyImages, Network, Slices, linearize_at
from posteriori.priors.base import Prior
from posteriori.rng import Streams

SIGMA = torch.tensor(0.7, dtype=F64)


class Conditional(nn.Module):
    """A network that takes a label or an embedding beside the image."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Parameter(draw(3, 2, seed=1))
        self.table = nn.Parameter(draw(4, 3, seed=2))

    def forward(self, x, label, kind=None, embedding=None):
        shift = 0 if kind is None else self.table[kind].view(-1, 3, 1, 1)
        shift = shift + (0 if embedding is None else (embedding @ self.lift.T).view(-1, 3, 1, 1))
        return torch.tanh(x + shift)


def network():
    return Network(
        Conditional().double(),
        shape=(3, 4, 5),
        sigma_data=0.5,
        conditions={"kind": (), "embedding": (2,)},
    )


class Own(Prior):
    """A user's prior with a parameter."""

    def __init__(self):
        super().__init__((2, 3), variance=0.5, sigma_max=20.0, sigma_min=0.05)
        self.centre = nn.Parameter(draw(3))

    def denoise(self, x, sigma):
        return self.centre + (x - self.centre) * 0.5 / (0.5 + sigma**2)


# Prior, and values of its leaves for three rows.
CASES = {
    "gaussian": lambda: (full_gaussian(F64, (2, 3)), {"mean": draw(3, 2, 3, seed=5)}),
    "weights": lambda: (mixture(), {"weights": draw(3, 3, seed=5).exp()}),
    "means": lambda: (
        mixture(),
        {"weights": draw(3, 3, seed=5).exp(), "means": draw(3, 3, 4, seed=6)},
    ),
    "complex": lambda: (ComplexImages(full_gaussian(F64, (2, 3))), {"mean": draw(3, 2, 3, seed=5)}),
    "slices": lambda: (Slices(full_gaussian(F64, (2, 3)), 2), {"mean": draw(3, 2, 3, seed=5)}),
    "embedding": lambda: (network(), {"embedding": draw(3, 2, seed=5)}),
    "adapter": lambda: (
        network(),
        {"net.lift": draw(3, 3, 2, seed=5), "embedding": draw(3, 2, seed=6)},
    ),
    "grey": lambda: (GreyImages(network()), {"embedding": draw(3, 2, seed=5)}),
    "own": lambda: (Own(), {"centre": draw(3, 3, seed=5)}),
}


def images(prior, rows=3, seed=7):
    x = draw(rows, *prior.shape, seed=seed)
    return torch.complex(x, draw(rows, *prior.shape, seed=seed + 1)) if prior.complex else x


def row(leaves, k):
    return {name: value[k] for name, value in leaves.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_leaf_per_row_is_one_row_at_a_time(name):
    prior, leaves = CASES[name]()
    x = images(prior)
    together = prior.at(**leaves)
    assert together.know().closed is None, "its densities are those of other leaves"
    alone = torch.cat([prior.at(**row(leaves, k)).denoise(x[k : k + 1], SIGMA) for k in range(3)])
    torch.testing.assert_close(together.denoise(x, SIGMA), alone, rtol=1e-12, atol=1e-12)
    x0, pull = together.linearize(x, SIGMA)
    torch.testing.assert_close(x0, alone, rtol=1e-12, atol=1e-12)
    u = images(prior, seed=11)
    pulled = torch.cat(
        [
            prior.at(**row(leaves, k)).linearize(x[k : k + 1], SIGMA)[1](u[k : k + 1])
            for k in range(3)
        ]
    )
    torch.testing.assert_close(pull(u), pulled, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(x0, prior.denoise(x, SIGMA)), "the leaf changes nothing"
    with pytest.raises(ValueError, match="holds leaves of 3 rows, the batch has 2"):
        together.denoise(x[:2], SIGMA)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("own", [True, False], ids=["per row", "shared"])
def test_the_derivative_by_a_leaf_is_that_of_the_denoiser(name, own):
    """<u, D(leaf + h v) - D(leaf - h v)> / 2h = <pull(u), v>, for x and for every leaf."""
    prior, leaves = CASES[name]()
    leaves = leaves if own else row(leaves, 0)
    x, u, h = images(prior), images(prior, seed=11), 1e-5
    x0, pulls = linearize_at(prior, x, SIGMA, **leaves)
    torch.testing.assert_close(x0, prior.at(**leaves).denoise(x, SIGMA))
    assert set(pulls) == {"x", *leaves}
    for leaf in pulls:
        at = x if leaf == "x" else leaves[leaf]
        v = images(prior, seed=13) if leaf == "x" else draw(*at.shape, seed=13)
        ends = []
        for sign in (1, -1):
            moved = leaves if leaf == "x" else {**leaves, leaf: at + sign * h * v}
            ends.append(prior.at(**moved).denoise(x + sign * h * v if leaf == "x" else x, SIGMA))
        want = ((ends[0] - ends[1]) * u.conj()).real.sum() / (2 * h)
        pulled = pulls[leaf](u)
        assert pulled.shape == at.shape
        torch.testing.assert_close((pulled * v.conj()).real.sum(), want, rtol=1e-6, atol=1e-8)
        assert torch.equal(pulls[leaf](u), pulled)


def test_the_pull_by_a_mean_has_its_closed_form():
    """D = m + G (x - m), G = C (C + s^2 I)^-1: (dD/dm)^T u = (I - G)^T u, a row each or their
    sum."""
    prior = full_gaussian()
    C, eye = prior.covariance, torch.eye(6, dtype=F64)
    rest = eye - C @ torch.linalg.inv(C + SIGMA**2 * eye)
    x, u, m = draw(3, 6), draw(3, 6, seed=1), draw(3, 6, seed=2)
    torch.testing.assert_close(linearize_at(prior, x, SIGMA, mean=m)[1]["mean"](u), u @ rest)
    torch.testing.assert_close(
        linearize_at(prior, x, SIGMA, mean=m[0])[1]["mean"](u), (u @ rest).sum(0)
    )


@pytest.mark.parametrize("name", ["gaussian", "means"])
def test_at_one_value_a_closed_form_prior_is_the_one_constructed_with_it(name):
    prior, leaves = CASES[name]()
    moved, x = prior.at(**row(leaves, 1)), images(prior)
    if name == "gaussian":
        want = po.priors.Gaussian(leaves["mean"][1], prior.covariance)
    else:
        want = po.priors.GaussianMixture(
            leaves["weights"][1], leaves["means"][1], prior.covariances
        )
    torch.testing.assert_close(moved.denoise(x, SIGMA), want.denoise(x, SIGMA))
    torch.testing.assert_close(moved.know().closed.log_prob(x), want.know().closed.log_prob(x))
    torch.testing.assert_close(moved.sample(5, 1), want.sample(5, 1))
    torch.testing.assert_close(moved.start(x, SIGMA), want.start(x, SIGMA))
    assert moved.know().error(0.7) == pytest.approx(want.know().error(0.7))
    for said in ("variance", "max_std", "sigma_min", "sigma_max"):
        assert getattr(moved, said) == pytest.approx(getattr(want, said))
    assert torch.equal(prior.denoise(x, SIGMA), CASES[name]()[0].denoise(x, SIGMA)), (
        "the prior itself has changed"
    )


def test_a_start_per_row_is_about_the_mean_of_each():
    prior, m, z = full_gaussian(), draw(3, 6, seed=2), draw(3, 6)
    want = torch.cat([prior.at(mean=m[k]).start(z[k : k + 1], SIGMA) for k in range(3)])
    torch.testing.assert_close(prior.at(mean=m).start(z, SIGMA), want)


def test_weights_count_by_their_shares():
    prior, z = mixture(), images(mixture())
    weights = draw(3, 3, seed=5).exp()
    for of in (lambda p: p.start(z, SIGMA), lambda p: p.denoise(z, SIGMA)):
        torch.testing.assert_close(of(prior.at(weights=3 * weights)), of(prior.at(weights=weights)))


def test_a_label_is_given_to_the_network_and_has_no_derivative():
    prior, x = network(), draw(3, 3, 4, 5)
    kinds = torch.tensor([3, 0, 1])
    x0, pulls = linearize_at(prior, x, SIGMA, kind=kinds)
    assert set(pulls) == {"x"}
    alone = [prior.at(kind=k).denoise(x[i : i + 1], SIGMA) for i, k in enumerate(kinds)]
    torch.testing.assert_close(x0, torch.cat(alone))
    assert not torch.allclose(prior.at(kind=kinds[0]).denoise(x, SIGMA), prior.denoise(x, SIGMA))
    both = prior.at(kind=kinds).at(embedding=torch.ones(2, dtype=F64))
    assert torch.equal(
        both.denoise(x, SIGMA),
        prior.at(kind=kinds, embedding=torch.ones(2, dtype=F64)).denoise(x, SIGMA),
    )
    assert prior.record() != prior.at(kind=kinds[0]).record() != prior.at(kind=kinds[1]).record()


def test_unknown_leaves_and_other_shapes_are_refused():
    prior = full_gaussian()
    with pytest.raises(
        ValueError, match=r"Gaussian has no leaf 'maen'; did you mean 'mean'\? Known: mean"
    ):
        prior.at(maen=torch.zeros(6))
    with pytest.raises(
        ValueError, match="GaussianMixture has no leaf 'weight'; did you mean 'weights'"
    ):
        mixture().at(weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"shape \(6\), or that with rows before it, got \(5,\)"):
        prior.at(mean=torch.zeros(5))
    with pytest.raises(ValueError, match="one number of rows"):
        mixture().at(weights=torch.ones(2, 3), means=torch.zeros(3, 3, 4))
    with pytest.raises(ValueError, match="has no leaf 'embeding'; did you mean 'embedding'"):
        network().at(embeding=torch.zeros(2))
    with pytest.raises(ValueError, match="no leaf 'c'; it has none"):
        linearize_at(Bare(), draw(1, 2), SIGMA, c=torch.zeros(1))
    assert prior.at() is prior


class Bare(Prior):
    def __init__(self):
        super().__init__((2,), variance=1.0, sigma_max=10.0, sigma_min=0.1)

    def denoise(self, x, sigma):
        return x


def test_inside_a_run_calls_at_leaves_are_counted():
    counter = Counter()
    prior = CountedPrior(full_gaussian(), counter)
    x, m = draw(3, 6), draw(3, 6, seed=2)
    x0, pulls = linearize_at(prior, x, SIGMA, mean=m)
    assert torch.equal(x0, linearize_at(full_gaussian(), x, SIGMA, mean=m)[0])
    pulls["mean"](x), pulls["x"](x)
    prior.at(mean=m).denoise(x, SIGMA)
    assert (counter.calls["denoiser"], counter.calls["vjp"]) == (6, 6)


def test_a_run_takes_the_prior_at_a_leaf():
    prior, m = full_gaussian(), torch.full((6,), 2.0, dtype=F64)
    like = po.Likelihood(
        torch.ones(6, dtype=F64),
        po.operators.Dense(torch.eye(6, dtype=F64)),
        po.noise.Gaussian(0.5),
    )
    want = po.sample(
        po.Posterior(po.priors.Gaussian(m, prior.covariance), like),
        po.methods.DPS(),
        n=3,
        steps=5,
        seed=1,
    )
    got = po.sample(po.Posterior(prior.at(mean=m), like), po.methods.DPS(), n=3, steps=5, seed=1)
    torch.testing.assert_close(got.samples, want.samples)


def test_the_noise_direction_may_be_that_of_another_denoised_image():
    """x' = x0 + sqrt(s^2 - std^2) (x - origin) / sigma + std z; by default origin = x0."""
    x0, x, origin = draw(3, 6), draw(3, 6, seed=1), draw(3, 6, seed=2)
    s, std = 0.6 * SIGMA, 0.2
    z = Streams(0, range(3)).normal(x)
    got = renoise(x0, x, SIGMA, s, std, Streams(0, range(3)), origin=origin)
    torch.testing.assert_close(got, x0 + (s**2 - std**2).sqrt() * (x - origin) / SIGMA + std * z)
    plain = renoise(x0, x, SIGMA, s, std, Streams(0, range(3)))
    torch.testing.assert_close(
        renoise(x0, x, SIGMA, s, std, Streams(0, range(3)), origin=x0),
        plain,
        rtol=1e-13,
        atol=1e-13,
    )
    last = torch.zeros((), dtype=F64)
    assert torch.equal(renoise(x0, x, SIGMA, last, 0.0, Streams(0, [0]), origin=x0), x0)


def test_dds_with_the_networks_direction_is_renoise_about_it():
    prior = full_gaussian()
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    post = po.Posterior(prior, po.Likelihood(torch.ones(3, dtype=F64), A, po.noise.Gaussian(0.3)))
    method, x, s = DDS(direction="network", transition=DDIM(0.5)), draw(3, 6), 0.6 * SIGMA
    moved, _ = method.step(post, x, SIGMA, s, Streams(0, range(3)))
    D, std = prior.denoise(x, SIGMA), 0.5 * float(s * (1 - s**2 / SIGMA**2).sqrt())
    want = renoise(method.denoise(post, x, SIGMA), x, SIGMA, s, std, Streams(0, range(3)), origin=D)
    torch.testing.assert_close(moved, want)
