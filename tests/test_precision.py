"""What a run works with: one device, one precision, and what a run says of its samples."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import posteriori as po
from posteriori.methods.base import Method
from posteriori.run import Run, Status

D = 6


def problem(y_dtype=torch.float32, prior_dtype=torch.float32, prior=None, A=None):
    prior = prior or po.priors.GaussianMixture(
        torch.ones(2), torch.stack([torch.zeros(D), torch.ones(D)]).to(prior_dtype), 0.5
    )
    A = A or po.operators.Dense(torch.eye(D, dtype=prior_dtype)[:3])
    return po.Posterior(
        prior, po.Likelihood(torch.ones(3, dtype=y_dtype), A, po.noise.Gaussian(0.3))
    )


@pytest.mark.parametrize("prior_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("y_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_y_decides_the_precision_from_float32_up(y_dtype, prior_dtype):
    run = po.sample(problem(y_dtype, prior_dtype), po.methods.MMPS(), n=2, steps=5)
    wanted = torch.float64 if y_dtype == torch.float64 else torch.float32
    assert run.samples.dtype == wanted
    exact = po.sample(
        problem(torch.float64, torch.float64), po.methods.MMPS(), n=2, steps=5, dtype=wanted
    )
    torch.testing.assert_close(run.samples, exact.samples, rtol=1e-3, atol=1e-3)


def test_a_stated_precision_wins_and_a_network_keeps_its_own():
    assert (
        po.sample(problem(), po.methods.DPS(), n=1, steps=3, dtype=torch.float64).samples.dtype
        == torch.float64
    )
    net = po.priors.digits()
    A = po.operators.Downsample((1, 16, 16), 4)
    post = po.Posterior(
        net, po.Likelihood(torch.zeros(1, 4, 4), A, po.noise.Gaussian(0.1), range=(-1, 1))
    )
    run = po.sample(post, po.methods.DPS(), n=1, steps=2, dtype=torch.float64)
    assert run.samples.dtype == torch.float64
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert post.at_work(dtype=torch.float64).prior is net


def test_what_need_not_change_is_not_copied():
    post = problem()
    assert post.at_work() is post
    assert post.at_work(device="cpu", dtype=torch.float32) is post
    assert post.at_work(dtype=torch.float64).prior is not post.prior
    assert post.prior.means.dtype == torch.float32


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="float32 or float64, got dtype=torch.float16"):
        po.sample(problem(), po.methods.DPS(), steps=2, dtype=torch.float16)
    with pytest.raises(ValueError, match="device 'nowhere' is not available here"):
        po.sample(problem(), po.methods.DPS(), steps=2, device="nowhere")


# What a run says of its samples
# --------------------------------------------------------------------------------------------------


def run_of(samples, log_w=None):
    n = len(samples)
    log_w = torch.zeros(n, dtype=torch.float64) if log_w is None else log_w
    return Run(
        samples, log_w, None, (Status(),) * n, {"denoiser": 3}, {}, 0.5, {"method": "DPS"}, ()
    )


def test_quantiles_of_equal_samples_are_their_order_statistics():
    x = torch.tensor([3.0, 1.0, 2.0, 4.0])[:, None].expand(4, 2) + torch.tensor([0.0, 10.0])
    run = run_of(x)
    for k in range(1, 5):
        torch.testing.assert_close(run.quantile(k / 5), torch.tensor([k, 10.0 + k]))
    torch.testing.assert_close(run.quantile(0.5), torch.tensor([2.5, 12.5]))
    assert run.quantile(0.0)[0] == 1
    assert run.quantile(1.0)[0] == 4


def test_intervals_hold_an_exchangeable_truth_as_often_as_they_say():
    """19 samples and a truth from one law, 40 000 times: a share of 0.8 within 4 standard errors,
    and the 9-th in 10 the same."""
    g = torch.Generator().manual_seed(0)
    x, truth = torch.randn(19, 40_000, generator=g), torch.randn(40_000, generator=g)
    for level in (0.8, 0.9):
        low, high = run_of(x).interval(level)
        held = ((low <= truth) & (truth <= high)).double().mean()
        assert abs(float(held) - level) < 4 * (level * (1 - level) / 40_000) ** 0.5


def test_few_samples_cannot_state_a_wide_interval():
    run = run_of(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(
        UserWarning,
        match=r"4 samples can state intervals of up to 60 %, not of 90 %.*; 19 samples can",
    ):
        low, high = run.interval(0.9)
    assert torch.equal(low, run.samples.amin(0))
    assert torch.equal(high, run.samples.amax(0))


def test_weighted_quantiles_are_those_of_copies():
    """In the limit of many samples: a sample of twice the weight counts twice."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 1, generator=g, dtype=torch.float64)
    w = torch.rand(4000, generator=g, dtype=torch.float64)
    order = x[:, 0].argsort()
    share = (w[order] / w.sum()).cumsum(0)
    for q in (0.1, 0.5, 0.9):
        wanted = x[order][(share >= q).nonzero()[0, 0]]
        torch.testing.assert_close(run_of(x, w.log()).quantile(q), wanted, atol=0.01, rtol=0)


def test_the_effective_number_of_samples():
    assert run_of(torch.zeros(5, 1)).ess == pytest.approx(5)
    weights = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64).log()
    assert run_of(torch.zeros(3, 1), weights).ess == pytest.approx(16 / 6)


def test_questions_without_an_answer_are_refused():
    with pytest.raises(ValueError, match="complex numbers have no quantiles"):
        run_of(torch.zeros(3, 1, dtype=torch.complex64)).quantile(0.5)
    with pytest.raises(ValueError, match="q: expected a number <= 1, got 1.5"):
        run_of(torch.zeros(3, 1)).quantile(1.5)


# What a newcomer types
# --------------------------------------------------------------------------------------------------


def test_reprs_are_short_and_say_what_there_is():
    post = problem()
    assert len(repr(post)) < 250
    assert "Dense([6] -> [3])" in repr(post)
    assert "Gaussian(sigma=0.3)" in repr(post)
    run = po.sample(post, po.methods.DPS(), n=2, steps=3)
    assert repr(run).startswith("Run(DPS: 2 samples of shape [6] float32; 3 denoiser, 3 vjp")
    assert repr(po.priors.digits()) == "Network([1, any, any], range [-1, 1], sigma 0.002 to 20)"


@pytest.mark.parametrize(
    ("room", "name", "message"),
    [
        (po.operators, "SuperResolution", r"here it is Downsample\(shape, factor\)"),
        (po.operators, "Inpainting", r"here it is Mask\(mask\)"),
        (po.operators, "CT", "here it is Radon"),
        (po.operators, "Randon", "did you mean 'Radon'"),
        (po.priors, "GausianMixture", "did you mean 'GaussianMixture'"),
        (po.methods, "PGDM", "did you mean 'PiGDM'"),
        (po, "Liklihood", "did you mean 'Likelihood'"),
        (po, "Gaussian", "here it is posteriori.noise.Gaussian"),
    ],
)
def test_a_name_that_is_not_there_leads_to_the_one_that_is(room, name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(room, name)


def test_what_other_names_lead_to_exists():
    for room in (po.operators, po.priors):
        for answer in room._ELSEWHERE.values():
            for name in re.findall(r"\b([A-Za-z_]+)\(", answer):
                assert hasattr(room, name), f"{answer}: {name}"


def test_the_version_is_that_of_the_package_and_its_types_are_seen():
    from importlib.metadata import version

    assert po.__version__ == version("posteriori")
    assert (Path(po.__file__).parent / "py.typed").exists()


def test_every_method_is_imported_by_name():
    """What editors and type checkers see is what the files hold."""
    text = inspect.getsource(po.methods)
    assert not [
        name
        for name in po.methods.ALL
        if not re.search(rf"^from \S+ import .*\b{name}\b", text, re.M)
    ]
    assert set(po.methods.ALL) <= set(po.methods.__all__)


@dataclass(frozen=True)
class Bare(Method[torch.Tensor]):
    """A method of one's own that states nothing about itself."""

    def step(self, post, state, sigma, s, rng):
        return post.prior.denoise(state, sigma) + s * rng.normal(state), {}


def test_a_method_without_a_reference_keeps_its_samples(tmp_path):
    run = po.sample(problem(), Bare(), n=2, steps=3, folder=tmp_path)
    assert len(run.samples) == 2
    assert run.references == ()
    assert len(Run.load(tmp_path).samples) == 2
    with pytest.raises(AssertionError, match="Bare states no reference"):
        po.testing.check_method(Bare(), problem())


# Before and without a measurement
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "solves"),
    [
        (po.methods.DPS(), ()),
        (po.methods.PiGDM(), ("closed form",)),
        (po.methods.MMPS(), ("closed form", "preconditioned GMRES")),
        (po.methods.MMPS.published(), ("conjugate gradients",)),
    ],
)
def test_a_plan_says_which_solve_and_how_many_calls(method, solves):
    """Calls are those of the run where a step costs the same at every level, and one-off costs are
    not multiplied."""
    post = problem()
    plan = post.plan(method, n=6, steps=10, batch=4)
    assert plan.solves == solves
    assert (plan.n, plan.steps, plan.rows, plan.batches) == (6, 10, 4, 2)
    assert plan.seconds > 0
    run = po.sample(post, method, n=6, steps=10, batch=4)
    # A last step from the smallest level to 0 may be a shorter one.
    assert run.counts["denoiser"] <= plan.calls["denoiser"] <= run.counts["denoiser"] + 1
    if not solves:
        assert plan.calls["operator"] == 10
    assert "precision: float32 on cpu" in str(plan)


def test_a_plan_names_ranges_pilots_and_refusals():
    y = torch.zeros(1, 4, 4)
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4), 1.0, range=(-1, 1))
    post = po.Posterior(
        prior,
        po.Likelihood(y, po.operators.Identity((1, 4, 4)), po.noise.Gaussian(0.1), range=(0, 1)),
    )
    said = str(post.plan(po.methods.DDRM(), n=1, steps=1))
    assert (
        "the prior works in [-1, 1], the measurement is expressed in [0, 1]; "
        "the noise level 0.1 is 0.2 there"
    ) in said
    assert problem().plan(po.methods.MomentSMC(particles=4, pilot=4), n=4, steps=3).pilot
    with pytest.raises(ValueError, match="MMPS: the noise level is 0"):
        po.Posterior(
            prior, po.Likelihood(y, post.given.A, po.noise.Gaussian(0.0), range=(0, 1))
        ).plan(po.methods.MMPS())


def test_a_plan_does_not_change_what_is_drawn():
    post = problem()
    before = po.sample(post, po.methods.DAPS(), n=2, steps=4).samples
    post.plan(po.methods.DAPS(), n=2, steps=4)
    assert torch.equal(po.sample(post, po.methods.DAPS(), n=2, steps=4).samples, before)


def test_every_prior_gives_samples_of_its_own():
    gaussian = po.priors.Gaussian(torch.full((4,), 3.0, dtype=torch.float64), 0.25)
    torch.testing.assert_close(
        gaussian.sample(2000, 0).mean(0), gaussian.mean, atol=4 * 0.5 / 2000**0.5, rtol=0
    )
    assert torch.equal(gaussian.sample(3, 1), gaussian.sample(5, 1)[:3])
    pairs = po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 3, dtype=torch.float64), 1.0))
    assert pairs.sample(2, 0).shape == (2, 3)
    assert pairs.sample(2, 0).is_complex()
    net = po.priors.digits()
    with pytest.raises(ValueError, match=r"say which, for example shape=\(3, 64, 64\)"):
        net.sample(1)
    images = net.sample(2, seed=1, steps=4, shape=(1, 32, 32))
    assert images.shape == (2, 1, 32, 32)
    torch.testing.assert_close(
        net.sample(1, seed=1, steps=4, shape=(1, 32, 32)), images[:1], atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="the prior models images of shape"):
        gaussian.sample(1, shape=(5,))


def test_a_prior_without_a_closed_form_is_integrated():
    """A white prior of a class of one's own: standard deviation and mean within 4 standard errors
    and the error of 50 steps."""

    class White(po.priors.Prior):
        def __init__(self):
            super().__init__((8,), variance=1.0, sigma_max=400.0, sigma_min=0.01)

        def denoise(self, x, sigma):
            return 2 + (x - 2) / (1 + sigma**2)

    x = White().sample(500, 0)
    assert abs(float(x.mean()) - 2) < 4 / 4000**0.5 + 0.02
    assert abs(float(x.std()) - 1) < 4 / 8000**0.5 + 0.02
