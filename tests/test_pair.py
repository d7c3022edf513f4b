"""A prior of several independent tensors, and methods that do not know of them."""

import math
from dataclasses import replace

import pytest
import torch
from reference import draw

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe, exact_posterior, oracle, summary
from posteriori.packing import pack, unpack
from posteriori.priors import Gaussian, GaussianMixture, Joint
from posteriori.priors.joint import mixture_of
from posteriori.rng import Streams

ops, F64 = po.operators, torch.float64
TWELVE = {
    "DPS": methods.DPS(),
    "MMPS": methods.MMPS(),
    "LGDMC": methods.LGDMC(),
    "DAPS": methods.DAPS(),
    "DiffPIR": methods.DiffPIR(),
    "PnPDM": methods.PnPDM(),
    "ReSample": methods.ReSample(),
    "SITCOM": methods.SITCOM(),
    "DCDP": methods.DCDP(),
    "FreeDoM": methods.FreeDoM(),
    "MGPS": methods.MGPS(),
    "Bootstrap": methods.Bootstrap(particles=16),
}


def smooth(side, width, dtype):
    i = torch.arange(side, dtype=F64)
    place = torch.cartesian_prod(i, i)
    return torch.exp(-0.5 * torch.cdist(place, place).square() / width**2).to(
        dtype
    ) + 1e-3 * torch.eye(side**2, dtype=dtype)


def blind(kernel_spread=0.03, dtype=torch.float32, side=8):
    """y = k * image, by default 8 x 8 and 3 x 3, both Gaussian; the image in [0, 1], its prior in
    [-1, 1]."""
    image = Gaussian(
        torch.zeros(1, side, side, dtype=dtype), 0.1 * smooth(side, 2.0, dtype), range=(-1, 1)
    )
    middle = ops.gaussian_kernel(0.8, 3).to(dtype)
    kernel = Gaussian(middle, kernel_spread**2)
    prior = Joint({"image": image, "kernel": kernel}, ranges={"image": (0, 1)})
    A = ops.BlindConvolution((1, side, side), (3, 3))
    x = 0.5 + 0.1 * draw(1, 1, side, side, dtype=dtype)
    y = A.apply(x, middle)[0] + 0.02 * draw(1, side, side, seed=1, dtype=dtype)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.02)))


@pytest.fixture(scope="module")
def problem():
    return blind()


@pytest.mark.parametrize("name", TWELVE)
def test_methods_that_know_nothing_of_parts_run_on_an_image_and_a_kernel(problem, name):
    run = po.sample(problem, TWELVE[name], n=2, steps=5, seed=1)
    assert all(status.ok for status in run.status)
    image, kernel = run.parts["image"], run.parts["kernel"]
    assert image.samples.shape == (2, 1, 8, 8)
    assert kernel.samples.shape == (2, 3, 3)
    assert run.samples.isfinite().all()
    # In the range of the user: the prior's mean of images is 0.5 there.
    assert 0.2 < float(image.mean.mean()) < 0.8
    torch.testing.assert_close(
        pack({"i": image.samples, "k": kernel.samples}), run.samples, rtol=0, atol=0
    )


def separate(dtype=F64):
    """y = (A x, B k), each part read by itself; priors Gaussian, the image's in another range than
    y."""
    A, B = draw(5, 6, seed=2), draw(3, 4, seed=3)
    block = ops.Dense(torch.block_diag(A, B), shape=(10,))
    roots = draw(6, 6, seed=4) / 3, draw(4, 4, seed=5) / 20
    parts = {
        "image": Gaussian(
            0.1 * draw(2, 3, seed=6),
            roots[0] @ roots[0].T + 0.05 * torch.eye(6, dtype=F64),
            range=(-1, 1),
        ),
        "kernel": Gaussian(
            0.1 * draw(4, seed=7), roots[1] @ roots[1].T + 1e-3 * torch.eye(4, dtype=F64)
        ),
    }
    y = torch.cat([A @ (0.5 + 0.2 * draw(6, seed=8)), B @ (0.1 * draw(4, seed=9))])
    noise = po.noise.Gaussian(0.1)
    joint = po.Posterior(Joint(parts, ranges={"image": (0, 1)}), po.Likelihood(y, block, noise))
    alone = {
        "image": po.Posterior(
            parts["image"], po.Likelihood(y[:5], ops.Dense(A, shape=(2, 3)), noise, range=(0, 1))
        ),
        "kernel": po.Posterior(
            parts["kernel"], po.Likelihood(y[5:], ops.Dense(B, shape=(4,)), noise)
        ),
    }
    return joint, alone


def test_the_posterior_of_parts_that_are_read_apart_is_that_of_each():
    """Independent parts and a block operator: means and covariances are the parts' own, log p(y)
    their sum."""
    joint, alone = separate()
    exact = exact_posterior(joint)
    own = {name: exact_posterior(post) for name, post in alone.items()}
    mean = unpack(exact.mean[None], joint.chart.shapes)
    for name, part in own.items():
        torch.testing.assert_close(mean[name][0], part.mean, rtol=1e-9, atol=1e-10)
    blocks = torch.block_diag(own["image"].covariance, own["kernel"].covariance)
    torch.testing.assert_close(exact.covariance, blocks, rtol=1e-9, atol=1e-11)
    assert exact.log_evidence == pytest.approx(
        sum(part.log_evidence for part in own.values()), rel=1e-10
    )


def test_each_part_is_sampled_as_alone_at_its_own_levels():
    """What a noise level sigma of the pair is to a part is c sigma: by the affine probe, the law of
    its samples is that of its own run."""
    joint, alone = separate()
    method, levels = methods.MMPS(iterations=40, rtol=1e-14), po.grid.log(3, 20.0, 0.1)
    mean, covariance = affine_probe(joint, method, 3, levels)
    for name, c, at in zip(
        joint.chart.names, joint.chart.units, (slice(0, 6), slice(6, 10)), strict=True
    ):
        wanted, spread = affine_probe(alone[name], method, 3, c * levels)
        torch.testing.assert_close(c * mean[at], wanted, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(c**2 * covariance[at, at], spread, rtol=1e-6, atol=1e-9)
    assert float(covariance[:6, 6:].abs().max()) < 1e-9


def test_a_method_that_is_exact_in_many_levels_is_so_on_each_part():
    """By the affine probe: mean and variances of the closed form, in the user's coordinates."""
    joint, _ = separate()
    mean, covariance = affine_probe(
        joint, methods.DAPS(draw="exact"), 80, po.grid.log(80, joint.prior.sigma_max, 1e-3)
    )
    a, b = joint.chart.straight
    exact = exact_posterior(joint)
    unit = exact.std.flatten()
    assert float(((a * mean + b - exact.mean).abs() / unit).max()) < 0.05
    assert float((a.abs() * covariance.diagonal().sqrt() / unit - 1).abs().max()) < 0.05


def test_the_oracle_of_a_pair_draws_in_the_users_coordinates():
    joint, _ = separate()
    run = po.sample(oracle(joint), methods.Unconditional(), n=400, steps=60, seed=2)
    exact = exact_posterior(joint)
    z = (run.mean - exact.mean) / exact.std * math.sqrt(400)
    assert float(z.abs().max()) < 4.5
    assert list(run.parts) == ["image", "kernel"]


def test_a_kernel_that_is_a_point_leaves_the_samples_of_a_known_blur():
    """As the kernel's spread goes to 0 the family is affine: the law of the samples is that with
    ``at(kernel)``, at the image's levels."""
    post = blind(kernel_spread=1e-8, dtype=F64, side=4)
    image, kernel = post.prior.priors
    known = post.given.A.at(kernel.mean)
    alone = po.Posterior(image, po.Likelihood(post.given.y, known, post.given.noise, range=(0, 1)))
    method = methods.MMPS(iterations=32, rtol=1e-13)
    levels = po.grid.log(4, 3.0, 0.05)
    c = post.prior.units[0]
    mean, covariance = affine_probe(post, method, 4, levels, rtol=1e-3)
    wanted, spread = affine_probe(alone, method, 4, c * levels)
    scale = spread.diagonal().sqrt()
    assert float(((c * mean[:16] - wanted) / scale).abs().max()) < 1e-3
    assert (
        float(((c**2 * covariance[:16, :16] - spread) / scale / scale[:, None]).abs().max()) < 1e-3
    )
    torch.testing.assert_close(
        post.prior.units[1] * mean[16:], kernel.mean.flatten(), rtol=0, atol=1e-6
    )


def mixed():
    mixtures = [
        GaussianMixture(
            torch.arange(1.0, k + 1, dtype=F64),
            3 * draw(k, 2, seed=k),
            0.2 * torch.eye(2, dtype=F64)[None],
        )
        for k in (2, 3)
    ]
    parts = {"m": mixtures[0], "h": mixtures[1], "g": Gaussian(draw(1, seed=2), 0.3)}
    return Joint(parts, units={"m": 2.0, "g": 0.5})


def test_densities_and_closed_forms_of_a_joint_prior_are_those_of_its_mixture():
    prior, u, sigma = mixed(), draw(6, 5, seed=3), torch.tensor(0.4, dtype=F64)
    whole = mixture_of(prior)
    for level in (sigma, 0.0):
        torch.testing.assert_close(
            prior.know().closed.log_prob(u, level), whole.log_prob(u, level), rtol=1e-10, atol=1e-10
        )
    torch.testing.assert_close(
        prior.denoise(u, sigma), whole.denoise(u, sigma), rtol=1e-9, atol=1e-9
    )
    (_, pull), (_, wanted) = prior.linearize(u, sigma), whole.linearize(u, sigma)
    torch.testing.assert_close(pull(u), wanted(u), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        torch.tensor(prior.variance), torch.tensor(whole.variance), rtol=1e-5, atol=0
    )
    assert prior.sigma_max >= whole.max_std


def test_draws_of_a_joint_prior_are_those_of_its_parts_and_independent():
    """Each part has streams of its own: two parts of one law are uncorrelated, and have its
    variance."""
    prior = Joint(
        {
            "a": Gaussian(torch.zeros(1, dtype=F64), 4.0),
            "b": Gaussian(torch.zeros(1, dtype=F64), 4.0),
        },
        units={"b": 1.0},
    )
    n = 4000
    u = prior.sample(n, seed=1)
    torch.testing.assert_close(prior.sample(2, seed=1), u[:2])
    z = torch.tensor(
        [u[:, 0].var() - 1, (u[:, 1] / 2).var() - 1, (u[:, 0] * u[:, 1] / 2).mean()]
    ) * math.sqrt(n)
    assert bool((z.abs() < 4 * torch.tensor([2**0.5, 2**0.5, 1.0])).all())
    x = prior.know().closed.draw_given(u, torch.tensor(1e-3, dtype=F64), Streams(0, range(n)))
    assert float((x - u).std()) == pytest.approx(1e-3, rel=0.1)


def test_leaves_of_a_joint_prior_are_those_of_its_parts():
    """joint.at(PART.LEAF) is the joint prior of parts at these leaves, also row by row; gradients
    are differences."""
    prior, u, sigma = mixed(), draw(4, 5, seed=3), torch.tensor(0.4, dtype=F64)
    means = draw(4, 2, 2, seed=8)
    assert prior.know().leaves()["m.means"] == (2, 2)
    each = prior.at(**{"m.means": means}).denoise(u, sigma)
    parts = dict(zip(prior.names, prior.priors, strict=True))
    for k in range(4):
        moved = Joint(
            parts | {"m": parts["m"].at(means=means[k])},
            units=dict(zip(prior.names, prior.units, strict=True)),
        )
        torch.testing.assert_close(
            each[k], moved.denoise(u[k : k + 1], sigma)[0], rtol=1e-10, atol=1e-11
        )
    _, pull = po.priors.linearize_at(prior, u, sigma, **{"m.means": means})
    h = 1e-5 * draw(4, 2, 2, seed=9)
    ends = [prior.at(**{"m.means": means + s * h}).denoise(u, sigma) for s in (1, -1)]
    slope = (pull["m.means"](u) * h).flatten(1).sum(1)
    torch.testing.assert_close(((ends[0] - ends[1]) / 2 * u).sum(1), slope, rtol=1e-5, atol=1e-11)
    with pytest.raises(ValueError, match="no leaf 'k.means'"):
        prior.at(**{"k.means": means})


def test_pairs_of_several_measurements_in_one_batch_are_those_of_each():
    post = blind(dtype=F64)
    others = [
        po.Likelihood(post.given.y + 0.01 * k, post.given.A, post.given.noise) for k in range(2)
    ]
    runs = po.sample_each(post.prior, others, TWELVE["MMPS"], n=2, steps=4, seed=7)
    for k, (run, given) in enumerate(zip(runs, others, strict=True)):
        alone = po.sample(po.Posterior(post.prior, given), TWELVE["MMPS"], n=2, steps=4, seed=7 + k)
        torch.testing.assert_close(run.samples, alone.samples, rtol=1e-6, atol=1e-8)
        assert run.parts["kernel"].samples.shape == (2, 3, 3)


def test_a_run_of_other_units_or_of_another_part_is_not_resumed(tmp_path):
    g, other = (Gaussian(torch.zeros(3) + m, 0.2) for m in (0.0, 0.1))
    given = po.Likelihood(
        torch.zeros(5), ops.Dense(torch.eye(5, 6), shape=(6,)), po.noise.Gaussian(0.1)
    )
    how = {"n": 1, "steps": 3, "folder": tmp_path / "run", "resume": True}
    run = po.sample(po.Posterior(Joint({"a": g, "b": g}), given), TWELVE["DPS"], **how)
    again = po.sample(po.Posterior(Joint({"a": g, "b": g}), given), TWELVE["DPS"], **how)
    assert torch.equal(again.samples, run.samples)
    for changed, said in (
        (Joint({"a": g, "b": g}, units={"a": 2.0}), "prior.units"),
        (Joint({"a": g, "b": other}), "prior.priors.b"),
    ):
        with pytest.raises(ValueError, match=said):
            po.sample(po.Posterior(changed, given), TWELVE["DPS"], **how)


def test_units_are_the_standard_deviations_of_the_parts():
    prior = Joint({"a": Gaussian(torch.zeros(3), 4.0), "b": Gaussian(torch.zeros(2), 1e-4)})
    assert prior.units == pytest.approx((2.0, 0.01))
    assert prior.variance == pytest.approx(1.0)
    for level in (0.1, 1.0, 7.0):
        assert prior.know().error(level) == pytest.approx(level**2 / (1 + level**2))


def test_a_run_of_parts_is_kept_and_shown_part_by_part(problem, tmp_path):
    run = po.sample(problem, TWELVE["DAPS"], n=6, steps=6, seed=4, folder=tmp_path / "run")
    again = po.Run.load(tmp_path / "run")
    assert again.parts["image"].config["range"] == [0, 1]
    low, high = again.parts["kernel"].interval(0.6)
    assert bool((low <= high).all())
    assert low.shape == again.parts["kernel"].std.shape == (3, 3)
    assert "parts" not in again.parts["image"].config
    truth = pack({"image": torch.full((1, 1, 8, 8), 0.5), "kernel": torch.full((1, 3, 3), 1 / 9)})[
        0
    ]
    record = po.report.save(run, problem, tmp_path / "saved", truth)
    assert record["rmse_mean"] > 0
    page = po.report.page(tmp_path / "saved").read_text()
    for said in (
        "image: Mean",
        "kernel: Mean",
        "image: Sample 1",
        "kernel: Standard deviation",
        "image: Reference",
        "Measurement",
    ):
        assert said in page
    assert "polygon" not in page
    assert "6 samples of shape 1 x 8 x 8 (image), 3 x 3 (kernel) that could" in page
    assert record["range"] == [0, 1]
    moved = replace(run, samples=run.samples + 0.8)
    assert any("outside the stated [0, 1]" in said for said in summary(moved, problem)["flags"])
    assert "Each part has a scale of its own: image black is 0, white is 1; kernel" in page
    assert run._repr_html_().count("<img") == 10


def test_an_interrupted_run_of_parts_goes_on_to_the_same_samples(problem, tmp_path):
    whole = po.sample(problem, TWELVE["DPS"], n=4, steps=4, seed=5)
    first = po.sample(problem, TWELVE["DPS"], n=2, steps=4, seed=5)
    rest = po.sample(problem, TWELVE["DPS"], n=2, steps=4, seed=5, first=2)
    torch.testing.assert_close(
        po.Run.merge([first, rest]).samples, whole.samples, rtol=1e-4, atol=1e-5
    )
    assert po.Run.merge([first, rest]).parts["kernel"].samples.shape == (4, 3, 3)


def test_what_is_no_joint_prior_is_refused_by_name():
    g, c = Gaussian(torch.zeros(2), 1.0), po.priors.ComplexImages(Gaussian(torch.zeros(2, 3), 1.0))
    for wrong, parts, how in (
        ("at least one part", {}, {}),
        ("complex ones only", {"a": g, "b": c}, {}),
        (r"units name \['c'\]; the parts are \['a'\]", {"a": g}, {"units": {"c": 1.0}}),
        ("unit of a must be a finite number > 0, got 0", {"a": g}, {"units": {"a": 0}}),
        ("has no range of its own", {"a": g}, {"ranges": {"a": (0, 1)}}),
        ("cannot be called 'a.b'", {"a.b": g}, {}),
        ("packed itself", {"a": Joint({"b": g})}, {}),
    ):
        with pytest.raises(ValueError, match=wrong):
            Joint(parts, **how)
    given = po.Likelihood(torch.zeros(2), ops.Identity((2,)), po.noise.Gaussian(1.0), range=(0, 1))
    with pytest.raises(ValueError, match="a range for each part"):
        po.Posterior(Joint({"a": g}), given)
    swapped = ops.Packed({"b": (2,), "a": (2,)}, lambda a, b: a + b)
    with pytest.raises(ValueError, match="in one order"):
        po.Posterior(
            Joint({"a": g, "b": g}), po.Likelihood(torch.zeros(2), swapped, po.noise.Gaussian(1.0))
        )


def test_what_steps_keep_of_a_spread_is_asked_in_the_samplers_units():
    """Twelve levels keep the same share of two parts of one relative width, whatever their
    units."""
    g, tiny = Gaussian(torch.zeros(4, dtype=F64), 1.0), Gaussian(torch.zeros(4, dtype=F64), 1e-6)
    kept = []
    for parts in ({"a": g, "b": g}, {"a": g, "b": tiny}):
        prior = Joint(parts)
        given = po.Likelihood(torch.zeros(1, dtype=F64), ops.Null((8,)), po.noise.Gaussian(1.0))
        post, method = po.Posterior(prior, given), methods.Unconditional()
        kept.append(summary(po.sample(post, method, n=32, steps=12), post, method=method)["kept"])
    assert kept[0] == pytest.approx(kept[1], rel=1e-6)


def test_complex_parts_are_packed_as_they_are():
    """An image and a coil map, both complex: y = coil * image, as in parallel imaging."""
    parts = {
        name: po.priors.ComplexImages(Gaussian(torch.zeros(2, 4, 5, dtype=F64) + m, 0.2))
        for name, m in (("image", 0.0), ("coil", 1.0))
    }
    prior = Joint(parts)
    po.testing.check_prior(prior)
    A = ops.Packed(
        {"image": (4, 5), "coil": (4, 5)},
        lambda image, coil: coil * image,
        complex_in=True,
        complex_out=True,
    )
    po.testing.check_operator(A)
    y = draw(4, 5, dtype=torch.complex128)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.1)))
    for method in (TWELVE["DPS"], TWELVE["MMPS"], TWELVE["DCDP"]):
        run = po.sample(post, method, n=2, steps=6)
        assert run.parts["coil"].samples.dtype == torch.complex128
        assert run.parts["coil"].samples.shape == (2, 4, 5)
    with pytest.raises(TypeError, match="not a mixture of real Gaussians"):
        mixture_of(prior)
