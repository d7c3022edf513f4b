"""What a prior knows is one object, which priors made of others hand on whole."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from cases import full_gaussian, mixture
from reference import F64

import posteriori as po
from posteriori.counting import CountedPrior, Counter, counted
from posteriori.evaluation.exact import exact_posterior, oracle
from posteriori.priors import ComplexImages, GreyImages, Network, Slices
from posteriori.priors.base import Prior, placed
from posteriori.priors.knowledge import Knowledge
from posteriori.rng import Streams


class Own(Prior):
    """A user's prior: a constructor call and a denoiser."""

    def __init__(self):
        super().__init__((2, 3), variance=0.5, sigma_max=20.0, sigma_min=0.05, max_std=2.0)

    def denoise(self, x, sigma):
        return x * 0.5 / (0.5 + sigma**2)


class Half(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, label):
        return self.share * x


def network(channels=3):
    return Network(
        Half(), shape=(channels, 4, 6), sigma_data=0.5, errors=((0.1, 0.008), (10.0, 0.2))
    )


PRIORS = {
    "own": Own,
    "gaussian": lambda: full_gaussian(F64, (2, 3)),
    "mixture": lambda: mixture(),
    "complex": lambda: ComplexImages(full_gaussian(F64, (2, 3))),
    "grey": lambda: GreyImages(network()),
    "slices": lambda: Slices(full_gaussian(F64, (2, 3)), 4),
    "network": network,
}


def test_a_prior_has_few_public_functions():
    source = Path(po.priors.base.__file__).read_text()
    (prior,) = (
        c for c in ast.parse(source).body if isinstance(c, ast.ClassDef) and c.name == "Prior"
    )
    names = [f.name for f in prior.body if isinstance(f, ast.FunctionDef) and f.name[0] != "_"]
    assert len(names) <= 9, names


@pytest.mark.parametrize("name", PRIORS)
def test_knowledge_agrees_with_what_the_prior_was_constructed_with(name):
    prior = PRIORS[name]()
    known = prior.know()
    for said in ("variance", "max_std", "sigma_min", "sigma_max"):
        assert getattr(known, said) == getattr(prior, said)
    assert known.name == type(prior).__name__
    sigma, c = 0.7, prior.max_std**2
    assert known.max_variance(sigma) == c * sigma**2 / (c + sigma**2)
    assert 0 < known.error(sigma) <= sigma**2
    ladder = known.ladder()
    assert bool((ladder.diff() > 0).all())
    if known.closed is None:  # a closed form holds at any level
        assert known.sigma_min * (1 - 1e-5) <= float(ladder[0])
        assert float(ladder[-1]) <= known.sigma_max * (1 + 1e-5)
    if known.closed is None:
        for what in ("density", "posterior", "p(x0 | x)"):
            with pytest.raises(TypeError, match=f"a {known.name} prior has no closed-form"):
                known.exact(what)
    else:
        assert known.exact("posterior") is known.closed or name in ("complex", "slices")


@pytest.mark.parametrize("name", PRIORS)
def test_inside_a_run_every_field_is_handed_on(name):
    prior = PRIORS[name]()
    inner = CountedPrior(prior, Counter())
    told, known = inner.know(), prior.know()
    for field in fields(Knowledge):
        a, b = getattr(told, field.name), getattr(known, field.name)
        assert (a is None) == (b is None)
        assert callable(b) or field.name in ("closed", "anisotropic") or a == b
    assert told.error(0.7) == known.error(0.7)
    assert torch.equal(told.ladder(), known.ladder())


def test_a_predicted_variance_is_counted_as_a_denoiser_call():
    class Sure(Own):
        def know(self):
            return replace(
                super().know(),
                predicted=lambda x, sigma: (self.denoise(x, sigma), torch.ones_like(x)),
            )

    counter = Counter()
    A = po.operators.Dense(torch.eye(6, dtype=F64), (2, 3))
    post = po.Posterior(Sure(), po.Likelihood(torch.zeros(6, dtype=F64), A, po.noise.Gaussian(0.1)))
    x = torch.ones(5, 2, 3, dtype=F64)
    x0, variance = counted(post, counter).prior.know().moments(x, torch.tensor(0.5, dtype=F64))
    assert counter.calls["denoiser"] == 5
    assert torch.equal(x0, post.prior.denoise(x, torch.tensor(0.5, dtype=F64)))
    assert torch.equal(variance, torch.ones_like(x))
    with pytest.raises(TypeError, match="a Own prior predicts no variance"):
        Own().know().moments(x, torch.tensor(0.5))
    with pytest.raises(TypeError, match="a Own prior does not know its error at each frequency"):
        Own().know().spectral_error(0.5)


def test_closed_form_priors_draw_exactly_also_as_slices_and_complex_images():
    """Draw k is a function of (seed, k); slices are draws of their prior one after the other."""
    inner = full_gaussian(F64, (2, 3))
    slices = Slices(inner, 4)
    assert torch.equal(slices.sample(3, 5), inner.sample(12, 5).view(3, 4, 2, 3))
    assert torch.equal(slices.sample(2, 5), slices.sample(3, 5)[:2])
    anyhow = Slices(inner)
    assert torch.equal(anyhow.sample(3, 5, shape=(4, 2, 3)), slices.sample(3, 5))
    with pytest.raises(ValueError, match="say which"):
        anyhow.sample(3, 5)
    with pytest.raises(ValueError, match="models images of shape"):
        slices.sample(3, 5, shape=(5, 2, 3))
    pairs = ComplexImages(inner)
    assert torch.equal(torch.view_as_real(pairs.sample(3, 5)).movedim(-1, 1), inner.sample(3, 5))


def test_a_closed_form_that_has_no_draws_of_its_own_is_sampled_by_its_denoiser():
    class Known(Own):
        def know(self):
            return replace(super().know(), closed=self)

    assert torch.equal(Known().sample(3, seed=1, steps=4), Own().sample(3, seed=1, steps=4))


def test_the_posterior_of_slices_is_not_offered():
    with pytest.raises(TypeError, match="a Slices prior has no closed-form posterior"):
        Slices(full_gaussian(), 2).know().exact("posterior").condition(
            torch.eye(12), torch.zeros(12), 0.1
        )


def test_the_oracle_knows_its_own_closed_form():
    """Conditioning the oracle's prior on a flat likelihood gives the posterior that it came
    from."""
    prior = full_gaussian()
    A = po.operators.Dense(torch.eye(6, dtype=F64)[:3])
    post = po.Posterior(prior, po.Likelihood(torch.ones(3, dtype=F64), A, po.noise.Gaussian(0.3)))
    known = oracle(post).prior.know()
    x = torch.linspace(-1, 1, 12, dtype=F64).view(2, 6)
    torch.testing.assert_close(known.closed.log_prob(x), exact_posterior(post).mixture.log_prob(x))
    assert known.sigma_max == prior.sigma_max


def test_a_network_keeps_its_precision_wherever_it_is_and_a_closed_form_follows_the_images():
    """Also inside priors of somebody else's."""

    class Wrapped(Own):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.closed = inner, full_gaussian(torch.float32)

    cpu = torch.device("cpu")
    for prior in (GreyImages(network()), Slices(network(), 2), network()):
        assert placed(prior, cpu, F64) is prior
    mixed = Wrapped(network())
    moved = placed(mixed, cpu, F64)
    assert moved is not mixed
    assert moved.inner.net.share.dtype == torch.float32
    assert {t.dtype for t in moved.closed.buffers()} == {F64}
    assert {t.dtype for t in mixed.closed.buffers()} == {torch.float32}
    assert placed(moved, cpu, F64) is moved


def test_a_draw_of_slices_takes_the_numbers_of_its_volume():
    inner, x = full_gaussian(F64, (2, 3)), torch.ones(3, 4, 2, 3, dtype=F64)
    sigma = torch.tensor(0.5, dtype=F64)
    closed = Slices(inner, 4).know().closed
    whole = closed.draw_given(x, sigma, Streams(1, range(3)))
    torch.testing.assert_close(whole[1:2], closed.draw_given(x[1:2], sigma, Streams(1, [1])))
