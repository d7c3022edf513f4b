"""The published beds are what they say, and their references are exact."""

from __future__ import annotations

import pytest
import torch

import posteriori as po
from posteriori.evaluation import discrepancies, exact_posterior
from posteriori.experiments import bed_scores as scores
from posteriori.noise import Gaussian
from posteriori.tasks import beds, bipsda
from posteriori.tasks import references as ref

N = 4000


def test_bipsda_is_the_published_problem():
    post = bipsda.bipsda("inpainting-low", 0).posterior
    torch.testing.assert_close(post.prior.weights, torch.tensor([0.4, 0.3, 0.3]).double())
    assert post.prior.means[:, 3].tolist() == [-5.0, 0.0, 5.0]
    for C, want in zip(
        post.prior.covariances,
        (torch.ones(10), torch.linspace(1, 2, 10), torch.linspace(1, 2, 10)),
        strict=True,
    ):
        torch.testing.assert_close(torch.linalg.eigvalsh(C), want.double())
    seen = po.operators.matrix(post.likelihood.A, dtype=torch.float64)
    assert seen.sum(0).tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
    assert (post.likelihood.std, bipsda.bipsda("inpainting-high", 0).posterior.likelihood.std) == (
        0.1,
        5.0,
    )
    x = torch.full((1, 10), 0.5, dtype=torch.float64)
    ct, phase = (bipsda.bipsda(name, 0).posterior.likelihood for name in ("ct", "phase"))
    torch.testing.assert_close(ct.A(x), torch.exp(-10.5 * ct.A.matrix.sum(1))[None])
    assert 0.01 <= float(ct.A.matrix.min()) < float(ct.A.matrix.max()) <= 0.05
    torch.testing.assert_close(phase.A(x), (0.5 * phase.A.matrix.sum(1)).square()[None])
    assert (tuple(ct.y.shape), tuple(phase.y.shape), ct.noise.peak, phase.std) == (
        (15,),
        (5,),
        1000.0,
        25.0,
    )


@pytest.mark.parametrize("problem", bipsda.PROBLEMS)
def test_a_problem_depends_on_its_seed_alone(problem):
    one = bipsda.bipsda(problem, 3)
    again = bipsda.bipsda(problem, 3, "extended")
    other = bipsda.bipsda(problem, 4)
    assert torch.equal(one.posterior.likelihood.y, again.posterior.likelihood.y)
    assert not torch.equal(one.posterior.likelihood.y, other.posterior.likelihood.y)
    assert (one.sigma_max, again.sigma_max) == (10.0, 100.0)
    assert float(one.posterior.likelihood.chi2(one.truth[None])) < 1 + 6 * (2 / 5) ** 0.5


@pytest.mark.parametrize("problem", ["ct", "phase"])
def test_a_rejected_reference_is_the_posterior(problem):
    """Against self-normalised importance sampling from the prior, which shares nothing with the
    envelope."""
    bed = bipsda.bipsda(problem, 0)
    z = bed.posterior.prior.sample(60_000, 7)
    w = bed.posterior.likelihood.log_prob(z).softmax(0)
    x = ref.reference_samples(bed, N, 1)
    mean = w @ z
    for got, values, want in (
        (x, z, mean),
        ((x - mean).square(), (z - mean).square(), w @ (z - mean).square()),
    ):
        error = ((w.square()[:, None] * (values - want).square()).sum(0) + got.var(0) / N).sqrt()
        assert float(((got.mean(0) - want) / error).abs().max()) < 4


@pytest.mark.parametrize("problem", ["ct", "phase"])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_references_mix_as_one(problem, seed):
    bound = ref.envelope(bipsda.bipsda(problem, seed).posterior)
    (x, accepted), (y, again) = ref.reject(bound, N, 1), ref.reject(bound, N, 2)
    within, between = (x.var(0) + y.var(0)) / 2, torch.stack([x.mean(0), y.mean(0)]).var(0)
    # The potential scale reduction
    assert float(((1 - 1 / N) + between / within).sqrt().max()) < 1.003
    assert accepted == pytest.approx(again, rel=0.1)
    assert accepted > 0.01
    assert len(x.unique(dim=0)) == N


def test_an_envelope_below_the_posterior_is_caught():
    bound = ref.envelope(bipsda.bipsda("phase", 0).posterior)
    with pytest.raises(ArithmeticError, match="envelope lies below"):
        ref.reject(ref.Envelope(bound.mixture, lambda x: bound.log_accept(x) + 0.5), 10, 0)


@pytest.mark.parametrize("y", [-300.0, -20.0, 0.0, 5.0, 28.0, 100.0, 600.0, 5000.0])
def test_lobes_lie_above_and_near(y):
    part = ref._above(y, 25.0)
    u = torch.linspace(0, (abs(y) + 50 * 25.0) ** 0.5, 20_001, dtype=torch.float64)
    logs = -0.5 * ((y - u.square()) / 25.0).square()
    above = ref._log_sum(part, u)
    assert float((logs - above).max()) < 0
    assert float(logs.exp().sum() / above.exp().sum()) > 0.7


def test_ksd_toy_is_the_published_problem():
    bed = beds.ksd_toy(0.2, 3)
    A = po.operators.matrix(bed.posterior.likelihood.A, dtype=torch.float64)
    assert A.shape == (14, 16)
    torch.testing.assert_close(
        A.sum(0), torch.cat([torch.zeros(2), torch.arange(14) * 0.05 + 0.1]).double()
    )
    exact = exact_posterior(bed.posterior)
    torch.testing.assert_close(exact.mixture.weights, torch.tensor([0.8, 0.2]).double())
    torch.testing.assert_close(
        exact.mixture.means[:, :2], torch.tensor([[0.0, 0.0], [3.0, 3.0]]).double()
    )
    with pytest.raises(ValueError, match="noise level > 0"):
        beds.ksd_toy(0.0)


def test_ksd_toy_scores_exact_samples_as_printed_and_sees_a_lost_mode():
    rows = [
        scores.ksd_toy_score(ref.reference_samples(b, 500, 1), b, ref.reference_samples(b, 500, 2))
        for b in map(beds.ksd_toy, [0.5] * 2, range(2))
    ]
    # The paper prints 1.30 +- 0.06
    assert sum(r["rmse"] for r in rows) / 2 == pytest.approx(1.30, abs=0.06)
    bed = beds.ksd_toy(0.5)
    reference = ref.reference_samples(bed, 500, 2)
    far = reference[reference[:, :2].sum(1) < 3]
    assert scores.ksd_toy_score(far, bed, reference)["sw1"] > 2 * rows[0]["sw1"]
    assert scores.ksd_toy_score(0.5 * reference, bed, reference)["ksd"] > 1.5 * rows[0]["ksd"]


@pytest.mark.parametrize(
    ("make", "seeds"),
    [
        (lambda seed: beds.gmm25(8, 4, seed), 100),
        (lambda seed: beds.gaussian_bed("white", seed), 60),
        (lambda seed: beds.gaussian_bed("diagonal", seed), 60),
        (lambda seed: beds.gaussian_bed("general", seed), 60),
        (lambda seed: beds.ksd_toy(0.5, seed), 30),
        (beds.mixture256, 2),
        (lambda seed: bipsda.bipsda("inpainting-high", seed), 60),
        (lambda seed: bipsda.bipsda("phase", seed), 60),
    ],
)
def test_a_measurement_is_its_truth_with_noise_of_the_stated_level(make, seeds, monkeypatch):
    """(y - A x) / sigma is standard normal, at the image x that the bed itself drew."""
    drawn = []
    for kind in (po.priors.GaussianMixture, po.priors.Gaussian):

        def kept(self, n, seed, *, kind=kind, sample=kind.sample, **options):
            drawn.append(sample(self, n, seed, **options))
            return drawn[-1]

        monkeypatch.setattr(kind, "sample", kept)
    z = []
    for seed in range(seeds):
        drawn.clear()
        bed = make(seed)
        given = bed.posterior.likelihood
        truth = drawn[-1][0] if drawn else bed.truth
        assert bed.truth is None or torch.equal(bed.truth, truth)
        z.append((given.y - given.A(truth[None])[0]) / given.std)
    z = torch.cat(z)
    assert abs(float(z.mean())) < 4 / len(z) ** 0.5
    assert abs(float(z.square().mean()) - 1) < 4 * (2 / len(z)) ** 0.5


def test_mixture256_shows_a_sixteenth_of_what_tells_its_components_apart():
    """Means are standard normal but for their part in the row space of A, which is divided by
    16."""
    post = beds.mixture256(0).posterior
    rows = post.likelihood.A.matrix
    torch.testing.assert_close(rows @ rows.T, torch.eye(128, dtype=torch.float64))
    seen = post.prior.means @ rows.T
    hidden = post.prior.means - seen @ rows
    # 8 x 128 standard normal numbers each.
    for part, size in ((16 * seen, 128), (hidden, 128)):
        assert abs(float(part.square().sum() / (8 * size)) - 1) < 4 * (2 / (8 * size)) ** 0.5


def test_mixture256_is_ambiguous_and_reproducible():
    effective = []
    for seed in range(5):
        bed = beds.mixture256(seed)
        w = exact_posterior(bed.posterior).mixture.weights
        effective.append(float(1 / w.square().sum()))
    assert bed.posterior.likelihood.A.matrix.shape == (128, 256)
    assert torch.equal(beds.mixture256(4).posterior.likelihood.y, bed.posterior.likelihood.y)
    assert sum(effective) / 5 > 1.5


@pytest.mark.parametrize(
    ("score", "make"),
    [
        (scores.bipsda_score, lambda: bipsda.bipsda("inpainting-high", 0)),
        (scores.bipsda_score, lambda: bipsda.bipsda("ct", 0)),
        (scores.mixture256_score, lambda: beds.mixture256(0)),
    ],
)
def test_the_prior_is_far_above_the_floor_in_every_metric(score, make):
    bed = make()
    reference = ref.reference_samples(bed, 1000, 1)
    floor = scores.bed_floor(score, bed, 1000, reference, 2)
    prior = score(bed.posterior.prior.sample(1000, 3), bed, reference)
    assert set(floor) == set(prior)
    for name in ("mean_error", "mmd"):
        assert prior[name] > 1.5 * floor[name], name


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="bipsda knows the problems"):
        bipsda.bipsda("mri", 0)
    post = bipsda.bipsda("ct", 0).posterior
    gaussian = po.Posterior(
        post.prior, po.Likelihood(post.likelihood.y, post.likelihood.A, Gaussian(0.1))
    )
    with pytest.raises(TypeError, match="no exact reference"):
        ref.envelope(gaussian)
    with pytest.raises(ValueError, match="keeps its truth"):
        scores.ksd_toy_score(torch.zeros(3, 8), beds.gaussian_bed("white"), torch.zeros(3, 8))


def test_the_bandwidth_of_the_stein_kernel_follows_the_median_singular_value():
    """Gains 0.10, 0.15, ..., 0.75: the two in the middle are 0.40 and 0.45."""
    bed = beds.ksd_toy(0.5)
    x = ref.reference_samples(bed, 50, 3)
    want = discrepancies.ksd(x, discrepancies.posterior_score(bed.posterior), c=1 / 1.425)
    assert scores.ksd_toy_score(x, bed, ref.reference_samples(bed, 50, 4))["ksd"] == pytest.approx(
        want, rel=1e-9
    )
