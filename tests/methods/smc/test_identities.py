"""What a step of a particle method must be, whatever its numbers: copies are as good as originals;
densities are those of the y given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, phases, picture
from reference import F64

import posteriori as po
from posteriori.genealogy import genealogy_of
from posteriori.methods import AFDPS, ALL, DDSMC, FPS, TDS, Bootstrap, MCGDiff, SMCDiff
from posteriori.methods.base import Method
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.rng import Streams

METHODS = {
    "AFDPS": AFDPS(8),
    "Bootstrap": Bootstrap(8),
    "DDSMC": DDSMC(8),
    "FPS": FPS(8),
    "FPS published": FPS(8, "published"),
    "MCGDiff": MCGDiff(8),
    "MCGDiff kept": MCGDiff(8, kappa=0.01, last="kept"),
    "SMCDiff": SMCDiff(8),
    "TDS": TDS(8),
    "TDS pigdm": TDS(8, "pigdm"),
    "TDS row sums": TDS(8, "row sums"),
}


class Silent:
    """No noise, so that a step is its mean."""

    def normal(self, like):
        return torch.zeros_like(like)

    def uniform(self, count):
        return torch.full((2, count), 0.5, dtype=F64)


def two_modes(sigma=0.05):
    whole = bed("general", sigma=sigma)
    means = torch.stack([torch.full((6,), m, dtype=F64) for m in (-1.0, 1.0)])
    prior = po.priors.GaussianMixture(
        torch.ones(2, dtype=F64), means, torch.linspace(0.3, 1.2, 6, dtype=F64).expand(2, 6)
    )
    return po.Posterior(prior, whole.likelihood)


def after_a_step(method, post):
    """A state of two clouds at sigma 1, reached by one step from 3, as a level in the middle of a
    run."""
    rng = Streams(0, range(2), method.group)
    x = post.prior.start(
        rng.normal(torch.zeros(2 * method.group, 6, dtype=F64)), torch.tensor(3.0, dtype=F64)
    )
    state = method.init(post, x, rng)
    return method.step(
        post, state, torch.tensor(3.0, dtype=F64), torch.tensor(1.0, dtype=F64), rng
    )[0]


def with_cloud(state, cloud, source):
    """The state with another cloud, and what else it holds of each row taken from the rows
    ``source``."""
    rest = lambda part: part[source] if isinstance(part, torch.Tensor) and part.ndim else part
    if isinstance(state, particles.Particles):
        return cloud
    if isinstance(state, tuple):
        return (cloud, *(rest(part) for part in state[1:]))
    return replace(state, cloud=cloud, e=rest(state.e))


@pytest.mark.parametrize("s", [0.5, 0.0])
@pytest.mark.parametrize("name", METHODS)
def test_what_is_resampled_is_what_its_original_was(name, s):
    """A cloud whose weight lies on one particle takes the step of a cloud of which all particles
    stand there: places, weights, evidence."""
    post, method = two_modes(), replace(METHODS[name], share=1.0)
    state = after_a_step(method, post)
    cloud = method.cloud(state)
    chosen = torch.tensor([3] * 8 + [8 + 5] * 8)
    alone = torch.full((16,), -torch.inf, dtype=F64)
    alone[3], alone[13] = 0.0, 0.0
    every = torch.arange(16)
    one = with_cloud(state, replace(cloud, log_w=alone), every)
    copies = with_cloud(
        state, replace(cloud, x=cloud.x[chosen], log_w=torch.zeros(16, dtype=F64)), chosen
    )
    levels = torch.tensor(1.0, dtype=F64), torch.tensor(s, dtype=F64)
    ends = [method.step(post, start, *levels, Silent())[0] for start in (one, copies)]
    out, expected = (method.cloud(end) for end in ends)
    for part, wanted in zip(
        *(end[1:] if isinstance(end, tuple) else () for end in ends), strict=True
    ):
        torch.testing.assert_close(part, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.x, expected.x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        out.log_w - out.log_w[0], expected.log_w - expected.log_w[0], rtol=1e-9, atol=1e-9
    )
    # One of eight particles had all the weight.
    gap = particles.log_evidence(out) - particles.log_evidence(expected)
    torch.testing.assert_close(
        gap, torch.full((2,), -2.0794415416798357, dtype=F64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("make", [bed, picture, complex_picture, phases], ids=lambda f: f.__name__)
def test_units_turn_a_density_of_y_in_the_priors_coordinates_to_one_in_the_users(make):
    """log p(y | x) of the user's y, less that of y in the prior's: the same for every x, and twice
    as much for complex numbers."""
    post = make()
    dtype = torch.complex128 if post.prior.complex else F64
    x = 0.3 * torch.randn(4, *post.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    gap = post.given.log_prob(post.to_given(x)) - post.likelihood.log_prob(x)
    torch.testing.assert_close(
        gap, torch.full((4,), post.log_volume, dtype=F64), rtol=1e-9, atol=1e-9
    )
    assert (post.log_volume != 0) == (make is picture)


def test_units_count_both_parts_of_a_complex_number():
    prior = po.priors.Gaussian(torch.zeros(2, 4, 5, dtype=F64), 0.3, range=(-1, 1))
    A = po.operators.MaskedFourier(
        po.operators.random_mask((4, 5), 0.5, 0), (4, 5)
    ) @ po.operators.ComplexChannels((2, 4, 5))
    y = torch.randn(
        *A.out_shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1)
    )
    post = po.Posterior(
        prior, po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.2), range=(0, 4))
    )
    x = torch.randn(3, 2, 4, 5, dtype=F64, generator=torch.Generator().manual_seed(2))
    gap = post.given.log_prob(post.to_given(x)) - post.likelihood.log_prob(x)
    torch.testing.assert_close(
        gap, torch.full((3,), post.log_volume, dtype=F64), rtol=1e-9, atol=1e-9
    )
    assert post.log_volume == pytest.approx(-2 * y.numel() * 0.6931471805599453)


def test_counts_have_no_unit_but_their_own():
    prior = po.priors.Gaussian(torch.zeros(5, dtype=F64), 0.3, range=(-1, 1))
    y = torch.full((5,), 0.5, dtype=F64)
    post = po.Posterior(
        prior, po.Likelihood(y, po.operators.Identity((5,)), po.noise.Poisson(20.0), range=(0, 1))
    )
    x = torch.linspace(-0.5, 0.5, 10, dtype=F64).view(2, 5)
    torch.testing.assert_close(
        post.given.log_prob(post.to_given(x)), post.likelihood.log_prob(x), rtol=1e-9, atol=1e-9
    )
    assert post.log_volume == 0


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, c in ALL.items()
        if issubclass(c, ParticleMethod) and c.log_evidence is not Method.log_evidence
    ],
)
def test_every_evidence_is_in_the_users_units(name):
    """A cloud before its first step has estimated p(y) by 1 in the prior's coordinates."""
    post, method = picture(), replace(ALL[name](), particles=4)
    rng = Streams(0, range(2), 4)
    state = method.init(post, rng.normal(torch.zeros(8, *post.shape, dtype=F64)), rng)
    torch.testing.assert_close(
        method.log_evidence(post, state),
        torch.full((2,), post.log_volume, dtype=F64),
        rtol=1e-12,
        atol=0,
    )


def test_a_cloud_gives_no_more_lines_than_samples_nor_than_they_differ():
    post = two_modes(1.0)
    run = po.sample(post, Bootstrap(16), n=20, grid=po.grid.log(4, 20.0, 0.1))

    def told(**changes):
        return genealogy_of(replace(run, **changes), post)

    lines = torch.full((4, 20), 9.0, dtype=F64)
    distinct = torch.arange(20.0)[:, None].expand(20, 6)
    # 16 samples of a cloud with 9 ancestors, 4 of another: no more than 4.
    assert told(trace=run.trace | {"ancestors": lines}, samples=distinct)["ancestors"] == 9 + 4
    assert (
        told(trace=run.trace | {"ancestors": lines}, samples=(distinct / 4).floor())["ancestors"]
        == 5
    )
    few = run.trace | {"ancestors": torch.full((4, 20), 2.0, dtype=F64)}
    assert told(trace=few, samples=distinct)["ancestors"] == 4
