"""Every kind of pretrained network is the same denoiser."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cases import exact_network, full_gaussian, toy_unet, wrapped
from reference import F64

import posteriori as po
from posteriori.priors import VE, ContinuousVP, DiscreteVP, Network, RectifiedFlow
from posteriori.priors.network import mirrored
from posteriori.testing.priors import check_denoising

LINEAR = DiscreteVP.linear()


@pytest.mark.parametrize("name", wrapped(full_gaussian()))
def test_every_parametrisation_of_one_gaussian_is_one_denoiser(name):
    gaussian = full_gaussian()
    prior = wrapped(gaussian)[name]
    for sigma in torch.logspace(-1.5, 1.95, 40, dtype=F64):
        x = gaussian.start(
            torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(0)), sigma
        )
        torch.testing.assert_close(
            prior.denoise(x, sigma), gaussian.denoise(x, sigma), rtol=1e-10, atol=1e-10
        )


def test_every_parametrisation_of_one_gaussian_samples_along_one_trajectory():
    gaussian = full_gaussian()
    A = po.operators.Dense(torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(1)))
    levels = torch.cat([torch.logspace(1.9, -1.5, 25, dtype=F64), torch.zeros(1, dtype=F64)])

    def trajectory(prior):
        seen = []
        post = po.Posterior(
            prior, po.Likelihood(torch.ones(3, dtype=F64), A, po.noise.Gaussian(0.2))
        )
        po.sample(
            post,
            po.methods.PiGDM(),
            n=4,
            grid=levels,
            seed=3,
            watch=[lambda k, s, rows, info: seen.append(rows.clone())],
        )
        return torch.stack(seen)

    paths = {name: trajectory(prior) for name, prior in wrapped(gaussian).items()}
    reference = paths.pop("edm")
    assert len(reference) == 25
    for name, path in paths.items():
        torch.testing.assert_close(
            path, reference, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_velocity_of_a_continuous_vp_path():
    gaussian, schedule = full_gaussian(), ContinuousVP()

    def net(x_net, t):
        t = float(t[0])

        def path(t):  # a and s at time t
            a = np.exp(-0.5 * (0.1 * t + 19.9 * t**2 / 2))
            return np.array([a, np.sqrt(1 - a**2)])

        (a, s), (da, ds) = path(t), (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
        x = x_net / a
        x0 = gaussian.denoise(x, torch.tensor(s / a, dtype=F64))
        return da * x0 + ds * (x - x0) / (s / a)

    prior = Network(net, shape=(6,), parametrization="flow", schedule=schedule, range=None)
    for sigma in torch.tensor([0.05, 1.0, 60.0], dtype=F64):
        x = sigma * torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(
            prior.denoise(x, sigma), gaussian.denoise(x, sigma), rtol=1e-6, atol=1e-6
        )


def test_integer_networks_are_mixed_between_timesteps():
    gaussian, asked = full_gaussian(), []
    sigmas = np.array(LINEAR.sigmas)

    def net(x_net, label):
        assert label.dtype == torch.int64
        assert label.shape == (len(x_net),)
        asked.append(int(label[0]))
        return exact_network(
            gaussian, "eps", lambda t: sigmas[int(t)], lambda sigma: (1 + sigma**2) ** -0.5
        )(x_net, label)

    prior = Network(
        net, shape=(6,), parametrization="eps", schedule=DiscreteVP.linear(integer=True), range=None
    )
    x = 3 * torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(3))
    exact = torch.tensor(sigmas[400], dtype=F64)
    torch.testing.assert_close(
        prior.denoise(x, exact), gaussian.denoise(x, exact), rtol=1e-10, atol=1e-10
    )
    assert asked == [400]
    between = torch.tensor(np.sqrt(sigmas[400] * sigmas[401]), dtype=F64)
    gap = (prior.denoise(x, between) - gaussian.denoise(x, between)).abs().max()
    assert asked[1:] == [400, 401]
    assert float(gap) < 1e-3
    _, pull = prior.linearize(x, between)
    assert pull(x).shape == x.shape


def spaced(spacing, n):
    """Levels of n timesteps of the linear chain, in the spacings in use, then 0."""
    sigmas = np.array(LINEAR.sigmas)
    if spacing == "leading":
        steps = (np.arange(n) * (1000 // n))[::-1]
    elif spacing == "trailing":
        steps = np.round(np.arange(1000, 0, -1000 / n)).astype(int)[:n] - 1
    elif spacing == "linspace":
        steps = (
            np.unique(np.linspace(0, 999, n).round().astype(int))[::-1]
            if n > 1
            else np.array([999])
        )
    else:
        return po.grid.karras(n, LINEAR.sigma_max, LINEAR.sigma_min)
    return torch.from_numpy(np.append(sigmas[steps], 0.0))


@pytest.mark.parametrize("n", [1, 2, 7, 10, 13, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "karras"])
def test_ddim_with_an_oracle_network_keeps_image_and_noise(spacing, n):
    """The network is told its level by the label alone; a label or step that is off by a little
    moves x off the line x0 + s eps."""
    g = torch.Generator().manual_seed(4)
    x0, eps = torch.randn(1, 4, dtype=F64, generator=g), torch.randn(1, 4, dtype=F64, generator=g)
    logs = np.log(LINEAR.sigmas)

    def net(x_net, label):
        sigma = np.exp(np.interp(float(label[0]), np.arange(1000), logs))
        a = (1 + sigma**2) ** -0.5
        return (x_net - a * x0) / (a * sigma)

    class Known(Network):
        def start(self, z, sigma):
            return x0 + sigma * eps

    prior = Known(net, shape=(4,), parametrization="eps", schedule=LINEAR, range=None)
    post = po.Posterior(
        prior,
        po.Likelihood(torch.zeros(1, dtype=F64), po.operators.Null((4,)), po.noise.Gaussian(1.0)),
    )
    gaps = []

    def look(k, s, rows, info):
        gaps.append(float((rows - (x0 + s * eps)).abs().max()))

    levels = spaced(spacing, n)
    po.sample(
        post, po.methods.Unconditional(po.methods.DDIM(eta=0.0)), n=1, grid=levels, watch=[look]
    )
    assert len(gaps) == len(levels) - 1
    assert max(gaps) < 1e-10


def test_wrong_parametrisations_schedules_and_ranges_are_found_on_known_images():
    gaussian = full_gaussian()
    images = gaussian.sample(200, seed=0)
    for prior in wrapped(gaussian).values():
        errors = check_denoising(prior, images, slack=1.03)
        assert list(errors.values()) == sorted(errors.values(), reverse=True)
        assert errors[min(errors)] > 0.9
        assert errors[max(errors)] < 0.3
    right = wrapped(gaussian)["eps linear"]
    wrong = (
        {"parametrization": "v", "schedule": LINEAR},
        {"parametrization": "x0", "schedule": LINEAR},
        {"sigma_data": 0.5},
    )
    for kwargs in wrong:
        prior = Network(right.net, shape=(6,), range=(-1, 1), variance=gaussian.variance, **kwargs)
        with pytest.raises(
            AssertionError, match=r"Network leaves or adds too much error .* range \(-1.0, 1.0\)"
        ):
            check_denoising(prior, images, slack=1.03)
    with pytest.raises(AssertionError, match="too much error"):
        check_denoising(right, 8 * images + 20)


@pytest.mark.filterwarnings("ignore:the cosine")
def test_the_schedule_that_a_network_was_trained_with_has_the_smallest_error():
    gaussian, images = full_gaussian(), full_gaussian().sample(200, seed=0)
    net = wrapped(gaussian)["eps linear"].net
    totals = []
    for schedule in (LINEAR, DiscreteVP.scaled_linear(), DiscreteVP.cosine()):
        prior = Network(
            net,
            shape=(6,),
            parametrization="eps",
            schedule=schedule,
            range=None,
            variance=gaussian.variance,
        )
        totals.append(sum(check_denoising(prior, images).values()))
    assert totals[0] < min(totals[1:]) - 0.01


def zeros(x, label):
    return torch.zeros_like(x)


@pytest.mark.parametrize("parametrization", ["eps", "score"])
def test_noise_prediction_at_pure_noise_is_refused_by_name(parametrization):
    with pytest.raises(
        ValueError,
        match=rf"'{parametrization}' network .* linear \(T=1000\), rescaled to zero terminal SNR",
    ):
        Network(
            zeros, shape=(1, 4, 4), parametrization=parametrization, schedule=LINEAR.zero_terminal()
        )


@pytest.mark.parametrize("parametrization", ["v", "x0"])
def test_v_and_x0_networks_work_with_zero_terminal_snr(parametrization):
    gaussian, schedule = full_gaussian(), LINEAR.zero_terminal()
    finite = np.array(schedule.sigmas[:-1])
    net = exact_network(
        gaussian,
        parametrization,
        lambda t: np.exp(np.interp(t, np.arange(999), np.log(finite))),
        lambda s: (1 + s**2) ** -0.5,
    )
    prior = Network(net, shape=(6,), parametrization=parametrization, schedule=schedule, range=None)
    sigma = torch.tensor(prior.sigma_max, dtype=F64)
    x = sigma * torch.randn(2, 6, dtype=F64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        prior.denoise(x, sigma), gaussian.denoise(x, sigma), rtol=1e-8, atol=1e-8
    )
    post = po.Posterior(
        prior,
        po.Likelihood(torch.zeros(1, dtype=F64), po.operators.Null((6,)), po.noise.Gaussian(1.0)),
    )
    for steps in (2, 3, 50):
        assert bool(
            po.sample(post, po.methods.Unconditional(), n=3, steps=steps).samples.isfinite().all()
        )


@pytest.mark.parametrize(("size", "nearest"), [((250, 250), "256x256"), ((33, 63), "32x64")])
def test_sizes_that_are_no_multiple(size, nearest):
    seen = []

    def net(x, label):
        seen.append(tuple(x.shape))
        return x

    prior = Network(net, shape=(3, None, None), multiple=32, sigma_data=0.5)
    x = torch.randn(1, 3, *size)
    assert prior.denoise(x, torch.tensor(1.0)).shape == x.shape
    assert seen == [(1, 3, -(-size[0] // 32) * 32, -(-size[1] // 32) * 32)]
    strict = Network(net, shape=(3, None, None), multiple=32, pad=None, sigma_data=0.5)
    text = f"multiples of 32, got {size[0]}x{size[1]}; the nearest size is {nearest}"
    with pytest.raises(ValueError, match=text):
        strict.denoise(x, torch.tensor(1.0))
    with pytest.raises(ValueError, match=text):
        po.Posterior(
            strict,
            po.Likelihood(
                x[0], po.operators.Identity((3, *size)), po.noise.Gaussian(0.1), range=(-1, 1)
            ),
        )


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_mirroring_agrees_with_numpy_and_goes_beyond_it(n):
    x = torch.arange(n, dtype=F64)
    for size in range(n, 4 * n + 3):
        want = np.pad(x.numpy(), (0, size - n), mode="reflect") if n > 1 else np.zeros(size)
        assert torch.equal(mirrored(x, 0, size), torch.from_numpy(want))


def test_padding_is_cropped_back_and_differentiable():
    net = toy_unet(F64)
    prior = Network(net, shape=(1, None, None), multiple=4, sigma_data=0.5)
    x = torch.randn(2, 1, 7, 5, dtype=F64, generator=torch.Generator().manual_seed(6))
    larger = Network(net, shape=(1, None, None), sigma_data=0.5).denoise(
        mirrored(mirrored(x, 2, 8), 3, 8), torch.tensor(0.3, dtype=F64)
    )
    torch.testing.assert_close(prior.denoise(x, torch.tensor(0.3, dtype=F64)), larger[..., :7, :5])


def test_learned_variance_is_left_out_and_said_once():
    prior = Network(
        lambda x, label: torch.cat([0.5 * x, 9 + x], 1),
        shape=(3, 4, 4),
        parametrization="x0",
        schedule=LINEAR,
    )
    x = torch.randn(2, 3, 4, 4)
    with pytest.warns(UserWarning, match="6 channels for 3"):
        out = prior.denoise(x, torch.tensor(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.denoise(x, torch.tensor(2.0))
    torch.testing.assert_close(out, 0.5 * x / 2**0.5)
    wrong = Network(
        lambda x, label: torch.cat([x, x[:, :2]], 1),
        shape=(3, 4, 4),
        parametrization="eps",
        schedule=LINEAR,
    )
    with pytest.raises(ValueError, match=r"returned \(2, 5, 4, 4\) for images \(2, 3, 4, 4\)"):
        wrong.denoise(x, torch.tensor(1.0))


def test_another_size_than_the_trained_one_is_warned_of_once():
    prior = Network(zeros, shape=(1, None, None), train_size=(32, 32), sigma_data=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.denoise(torch.zeros(1, 1, 32, 32), torch.tensor(1.0))
        Network(zeros, shape=(1, None, None), sigma_data=0.5).denoise(
            torch.zeros(1, 1, 16, 16), torch.tensor(1.0)
        )
    with pytest.warns(UserWarning, match="trained on 32x32 images and runs on 16x16"):
        prior.denoise(torch.zeros(1, 1, 16, 16), torch.tensor(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.denoise(torch.zeros(1, 1, 16, 16), torch.tensor(1.0))


def test_containers_labels_and_precision():
    seen = []

    def net(x, label):
        seen.append((x.dtype, label.dtype, tuple(label.shape), float(label[0])))
        return SimpleNamespace(sample=x)

    prior = Network(net, shape=(2,), parametrization="eps", schedule=LINEAR)
    sigma = torch.tensor(LINEAR.sigmas[400], dtype=F64)
    assert prior.denoise(torch.ones(3, 2), sigma).dtype == torch.float32
    assert prior.denoise(torch.ones(3, 2, dtype=F64), sigma).dtype == F64
    assert [s[:3] for s in seen] == [(torch.float32, torch.float32, (3,)), (F64, F64, (3,))]
    assert seen[1][3] == pytest.approx(400, abs=1e-9)


def test_a_single_precision_network_serves_a_double_run():
    prior = Network(toy_unet(torch.float32), shape=(1, 8, 8), sigma_data=0.5)
    x = torch.randn(2, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(7))
    sigma = torch.tensor(0.5, dtype=F64)
    x0, pull = prior.linearize(x, sigma)
    assert (x0.dtype, pull(x).dtype) == (F64, F64)
    torch.testing.assert_close(
        x0,
        Network(toy_unet(F64), shape=(1, 8, 8), sigma_data=0.5).denoise(x, sigma),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "kwargs", [{"sigma_data": 0.5}, {"parametrization": "v", "schedule": LINEAR}]
)
def test_autocast_runs_the_network_in_bfloat16_and_keeps_the_skip_connection(kwargs):
    exact = Network(toy_unet(), shape=(1, 8, 8), **kwargs)
    fast = Network(toy_unet(), shape=(1, 8, 8), autocast="bfloat16", **kwargs)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    a, b = (prior.denoise(x, torch.tensor(0.02)) for prior in (exact, fast))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


def test_parameters_are_frozen_and_the_network_is_in_evaluation_mode():
    net = toy_unet().train()
    prior = Network(net, shape=(1, 8, 8), sigma_data=0.5)
    assert not net.training
    assert not any(p.requires_grad for p in prior.parameters())
    prior.linearize(torch.zeros(1, 1, 8, 8), torch.tensor(1.0))[1](torch.ones(1, 1, 8, 8))
    assert all(p.grad is None for p in net.parameters())


def test_limits_come_from_the_schedule_or_the_user():
    assert Network(zeros, shape=(2,), sigma_data=0.5).sigma_max == 80.0
    prior = Network(zeros, shape=(2,), parametrization="eps", schedule=LINEAR)
    assert (prior.sigma_min, prior.sigma_max) == (LINEAR.sigma_min, LINEAR.sigma_max)
    assert prior.variance == 0.25
    found = Network(
        zeros, shape=(2,), parametrization="eps", schedule=LINEAR, sigma_max=20.0, variance=2.0
    ).sigma_max
    assert found == 20.0


def test_measured_errors_are_read_in_logarithms_and_never_exceed_that_of_the_noisy_image_itself():
    """x itself is off by sigma^2: below the first level, where the table says no more, no denoiser
    is worse than that."""
    prior = Network(
        zeros, shape=(2,), sigma_data=0.5, errors=((0.1, 0.008), (1.0, 0.2), (10.0, 0.24))
    )
    for sigma, error in (
        (0.1, 0.008),
        (1.0, 0.2),
        (10.0, 0.24),
        (0.1**0.5, 0.04),
        (10**0.5, 0.048**0.5),
        (40.0, 0.24),
    ):
        assert prior.know().error(sigma) == pytest.approx(error, rel=1e-12)
    for sigma in (0.05, 0.002):
        assert prior.know().error(torch.tensor(sigma, dtype=F64)) == pytest.approx(
            sigma**2, rel=1e-12
        )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"parametrization": "epsilon", "schedule": LINEAR},
            "parametrization is 'epsilon'; did you mean 'eps'",
        ),
        ({"parametrization": "eps"}, "'eps' needs the schedule"),
        ({"schedule": LINEAR}, "'edm' takes no schedule"),
        ({"parametrization": "flow", "schedule": LINEAR}, "needs a schedule with a velocity"),
        ({"parametrization": "eps", "schedule": LINEAR, "sigma_max": 200.0}, "200 lies outside"),
        (
            {"parametrization": "score", "schedule": VE(0.1, 2.0), "sigma_min": 0.01},
            "0.01 lies outside",
        ),
        ({"autocast": "int8"}, "autocast is 'int8'"),
        ({"sigma_data": 0.0}, "sigma_data must be"),
        ({"sigma_data": float("nan")}, "sigma_data: expected a finite number"),
        (
            {"sigma_data": None},
            "an 'edm' network needs sigma_data, the standard deviation of one number",
        ),
        ({"multiple": 0}, "multiple=0"),
        ({"pad": "zero"}, "pad is 'zero'"),
        ({"shape": (4,), "multiple": 8}, "cannot be padded"),
        (
            {
                "parametrization": "flow",
                "schedule": RectifiedFlow(),
                "sigma_min": 5.0,
                "sigma_max": 2.0,
            },
            "sigma_min < sigma_max",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Network(zeros, **{"shape": (1, 4, 4), "sigma_data": 0.5, **kwargs})


def test_the_constant_of_edm_is_asked_for():
    """For unit variance F = 0 is exact with the constant 1, D(1, 1) = 1/2; another constant gives
    another denoiser at every level."""
    one = torch.ones(1, 1, dtype=F64)
    with pytest.raises(ValueError, match="needs sigma_data"):
        Network(zeros, shape=(1,), range=None)
    for constant, want in ((1.0, 0.5), (0.5, 0.2)):
        prior = Network(zeros, shape=(1,), range=None, sigma_data=constant)
        assert float(prior.denoise(one, torch.tensor(1.0, dtype=F64))) == pytest.approx(want)
        assert prior.variance == constant**2
    other = Network(zeros, shape=(1,), parametrization="x0", schedule=LINEAR)
    assert (other.sigma_data, other.variance) == (None, 0.25)


def test_a_grid_beyond_the_schedule_is_refused():
    prior = Network(
        zeros,
        shape=(1, 4, 4),
        parametrization="eps",
        schedule=DiscreteVP.scaled_linear(),
        range=None,
    )
    post = po.Posterior(
        prior, po.Likelihood(torch.zeros(1), po.operators.Null((1, 4, 4)), po.noise.Gaussian(1.0))
    )
    with pytest.raises(ValueError, match=r"157\.407 lies outside"):
        po.sample(post, po.methods.Unconditional(), steps=5, grid=po.grid.ddpm(5))
    assert len(po.sample(post, po.methods.Unconditional(), steps=5, grid="ddpm").samples) == 1


def test_the_network_hears_its_label_as_it_is_and_by_cosine_and_sine():
    net, heard = toy_unet(F64), []
    net.embed.mlp[0].register_forward_pre_hook(lambda layer, given: heard.append(given[0]))
    label = torch.tensor([0.3, -1.2], dtype=F64)
    net(torch.zeros(2, 1, 8, 8, dtype=F64), label)
    phase = label[:, None] * np.pi * 2.0 ** torch.linspace(-3, 4, 16)
    torch.testing.assert_close(
        heard[0], torch.cat([label[:, None], phase.cos(), phase.sin()], 1), rtol=1e-5, atol=1e-5
    )


def test_fine_detail_reaches_the_output_past_the_coarse_scales():
    """With the way up from the coarse scale cut, only the skip is left: the output still follows
    the image."""
    net = toy_unet(F64)
    x = torch.randn(1, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    for p in net.grow.parameters():
        p.data.zero_()
    label = torch.zeros(1, dtype=F64)
    with torch.no_grad():
        one, other = net(x, label), net(-x, label)
    assert float((one - other).abs().mean()) > 1e-2 * float(one.abs().mean())


def test_the_image_beside_a_learned_variance_is_the_denoised_one():
    prior = Network(
        lambda x, label: torch.cat([0.5 * x, 0.1 * x - 0.3], 1),
        shape=(3, 4, 4),
        parametrization="eps",
        schedule=LINEAR,
    )
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 3.0):
        mean, variance = prior.know().moments(x, torch.tensor(sigma, dtype=F64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.testing.assert_close(mean, prior.denoise(x, torch.tensor(sigma, dtype=F64)))
        assert bool((variance > 0).all())
        assert bool((variance < sigma**2).all())
