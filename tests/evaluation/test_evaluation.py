"""Numbers of a run against closed forms: exact posteriors, the oracle, distances, calibration,
image metrics, the summary."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace

import pytest
import torch
from reference import F64, draw
from skimage.metrics import structural_similarity

import posteriori as po
from posteriori import evaluation as ev
from posteriori.evaluation import rank_tests
from posteriori.methods.transitions import DDIM
from posteriori.operators.base import LinearOperator
from posteriori.run import Run, Status


def spd(d, seed=0):
    M = draw(d, d, seed=seed)
    return M @ M.T / d + 0.2 * torch.eye(d, dtype=F64)


def gaussian(d=5, m=3, sigma=0.3, **options):
    prior = po.priors.Gaussian(draw(d, seed=1), spd(d), range=options.get("prior_range"))
    likelihood = po.Likelihood(
        draw(m, seed=3),
        po.operators.Dense(draw(m, d, seed=2)),
        po.noise.Gaussian(sigma),
        range=options.get("range"),
    )
    return po.Posterior(prior, likelihood)


def made(samples, method="Made", log_w=None, status=None, **config):
    """A run with the given samples."""
    log_w = torch.zeros(len(samples), dtype=F64) if log_w is None else log_w
    status = status or (Status(),) * len(samples)
    return Run(
        samples,
        log_w,
        None,
        status,
        {"denoiser": 10},
        {},
        1.0,
        {"method": method, **config},
        ("none",),
    )


class RealFourier(LinearOperator):
    """Some Fourier coefficients of a real signal of 6 numbers."""

    def __init__(self):
        super().__init__((6,), complex_out=True)

    def forward(self, x):
        return torch.fft.fft(x, norm="ortho")[:, 1:3]


class TestExact:
    def test_it_is_the_kalman_formula(self):
        post = gaussian()
        A = post.likelihood.A.matrix
        C = post.prior.covariance
        mu = post.prior.mean
        y = post.likelihood.y
        precision = torch.linalg.inv(C) + A.T @ A / 0.09
        covariance = torch.linalg.inv(precision)
        exact = ev.exact_posterior(post)
        torch.testing.assert_close(exact.covariance, covariance)
        torch.testing.assert_close(
            exact.mean, covariance @ (torch.linalg.solve(C, mu) + A.T @ y / 0.09)
        )
        torch.testing.assert_close(exact.std, covariance.diagonal().sqrt())
        marginal = torch.distributions.MultivariateNormal(
            A @ mu, A @ C @ A.T + 0.09 * torch.eye(3, dtype=F64)
        )
        assert exact.log_evidence == pytest.approx(float(marginal.log_prob(y)), abs=1e-10)

    def test_another_unit_changes_the_coordinates_and_not_the_evidence(self):
        # The same problem stated in the prior's range (-1, 1) and in (0, 255): x = 127.5 u + 127.5,
        # A' x = A (x - 127.5) / 127.5.
        A, sigma = draw(3, 5, seed=2), 0.3
        inner = gaussian(prior_range=(-1, 1), range=(-1, 1))
        outer = po.Posterior(
            inner.prior,
            po.Likelihood(
                inner.given.y + A.sum(1),
                po.operators.Dense(A / 127.5),
                po.noise.Gaussian(sigma),
                range=(0, 255),
            ),
        )
        one, two = ev.exact_posterior(inner), ev.exact_posterior(outer)
        torch.testing.assert_close(two.mean, 127.5 * one.mean + 127.5)
        torch.testing.assert_close(two.covariance, 127.5**2 * one.covariance)
        assert two.log_evidence == pytest.approx(one.log_evidence, abs=1e-9)
        assert two.mixture.range == (0, 255)
        assert two.mean.shape == outer.to_given(inner.prior.mean).shape
        x = 127.5 * draw(4, 5) + 127.5
        torch.testing.assert_close(
            two.denoise(x, 127.5), 127.5 * one.denoise((x - 127.5) / 127.5, 1.0) + 127.5
        )

    def test_complex_measurements_of_a_real_signal_are_two_real_ones(self):
        prior, F = po.priors.Gaussian(torch.zeros(6, dtype=F64), spd(6)), RealFourier()
        y = torch.complex(draw(2, seed=4), draw(2, seed=5))
        exact = ev.exact_posterior(
            po.Posterior(
                prior, po.Likelihood(y, F, po.noise.ComplexGaussian(sigma_per_channel=0.2))
            )
        )
        M = po.operators.matrix(F)
        real = po.Likelihood(
            torch.cat([y.real, y.imag]),
            po.operators.Dense(torch.cat([M.real, M.imag])),
            po.noise.Gaussian(0.2),
        )
        other = ev.exact_posterior(po.Posterior(prior, real))
        torch.testing.assert_close(exact.mean, other.mean)
        assert exact.log_evidence == pytest.approx(other.log_evidence)
        # Only two of the four real numbers of two Fourier coefficients would be a mistake that
        # widens the posterior.
        half = ev.exact_posterior(
            po.Posterior(
                prior, po.Likelihood(y.real, po.operators.Dense(M.real), po.noise.Gaussian(0.2))
            )
        )
        assert float(exact.covariance.trace()) < 0.95 * float(half.covariance.trace())

    def test_single_precision_is_worked_out_in_double(self):
        post = gaussian()
        prior = po.priors.Gaussian(post.prior.mean.float(), post.prior.covariance.float())
        A = po.operators.Dense(post.given.A.matrix.float())
        single = ev.exact_posterior(
            po.Posterior(prior, po.Likelihood(post.given.y.float(), A, po.noise.Gaussian(0.3)))
        )
        assert single.mean.dtype == F64
        torch.testing.assert_close(single.mean, ev.exact_posterior(post).mean, rtol=1e-5, atol=1e-5)
        assert prior.mean.dtype == torch.float32

    def test_samples_do_not_share_random_numbers_with_a_run_of_the_same_seed(self):
        exact = ev.exact_posterior(gaussian())
        torch.testing.assert_close(exact.sample(20_000, 0).mean(0), exact.mean, rtol=0, atol=0.03)
        assert not torch.equal(exact.sample(3, 0), exact.mixture.sample(3, 0))

    def test_it_refuses_what_has_no_closed_form(self):
        class Net(po.priors.Prior):
            def denoise(self, x, sigma):
                return x

        post = gaussian()
        with pytest.raises(TypeError, match="Net prior has no closed-form posterior"):
            ev.exact_posterior(
                po.Posterior(Net((5,), variance=1.0, sigma_max=5.0, sigma_min=0.01), post.given)
            )
        with pytest.raises(ValueError, match="noise level > 0"):
            ev.exact_posterior(
                po.Posterior(post.prior, replace(post.given, noise=po.noise.Gaussian(0.0)))
            )
        with pytest.raises(TypeError, match="Poisson"):
            ev.exact_posterior(
                po.Posterior(post.prior, replace(post.given, noise=po.noise.Poisson(100.0)))
            )
        with pytest.raises(ValueError, match="widened by r2 = 2"):
            ev.exact_posterior(po.Posterior(post.prior, post.given.widen(2.0)))


def mixture_posterior(dtype=F64):
    means = torch.tensor([[-3.0, 0, 1, 0], [2, 2, 0, -1], [0, -2, -2, 2]], dtype=dtype)
    prior = po.priors.GaussianMixture(torch.tensor([0.2, 0.5, 0.3], dtype=dtype), means, 0.4)
    A = po.operators.Dense(draw(2, 4, seed=2).to(dtype) * 0.3)
    return po.Posterior(
        prior, po.Likelihood(torch.tensor([0.3, -0.2], dtype=dtype), A, po.noise.Gaussian(0.3))
    )


class TestOracle:
    def test_sampling_it_gives_the_exact_posterior_of_a_mixture(self):
        post = mixture_posterior()
        exact = ev.exact_posterior(post)
        run = po.sample(
            ev.oracle(post), po.methods.Unconditional(po.methods.Heun()), n=1500, steps=150, seed=0
        )
        floor, spread = ev.floor(exact, 1500, slices=200)
        distance = ev.sliced_wasserstein(run.samples, exact.sample(1500, 9), slices=200)
        assert distance < floor + 4 * spread + 0.03
        prior = ev.sliced_wasserstein(post.prior.sample(1500, 1), exact.sample(1500, 9), slices=200)
        assert prior > 5 * distance

    def test_it_shares_grid_start_and_random_numbers_with_a_method(self):
        post = gaussian(prior_range=(-1, 1), range=(0, 1))
        transition = DDIM(eta=1.0)
        run = po.sample(
            post,
            po.methods.MMPS(iterations=10, rtol=1e-13, transition=transition),
            n=3,
            steps=20,
            seed=4,
        )
        best = po.sample(
            ev.oracle(post), po.methods.Unconditional(transition), n=3, steps=20, seed=4
        )
        assert run.config["levels"] == best.config["levels"]
        torch.testing.assert_close(run.samples, best.samples, rtol=1e-8, atol=1e-8)
        # PiGDM takes the prior for white, which this one is not.
        other = po.sample(post, po.methods.PiGDM(transition=transition), n=3, steps=20, seed=4)
        assert float((other.samples - best.samples).abs().max()) > 1e-3

    def test_it_keeps_single_precision(self):
        assert (
            po.sample(
                ev.oracle(mixture_posterior(torch.float32)),
                po.methods.Unconditional(),
                n=2,
                steps=5,
            ).samples.dtype
            == torch.float32
        )


class TestDistances:
    def test_shifted_sets_are_as_far_as_the_mean_projection_of_the_shift(self):
        x, shift = draw(300, 3), torch.tensor([3.0, 0, 0], dtype=F64)
        # E|<u, e>| = 1/2 for a uniform direction u in three dimensions.
        assert ev.sliced_wasserstein(x, x + shift, slices=20_000) == pytest.approx(1.5, rel=0.01)
        # (E <u, e>^2)^(1/2) = 1/sqrt(3).
        assert ev.sliced_wasserstein(x, x + shift, slices=20_000, p=2) == pytest.approx(
            3 / math.sqrt(3), rel=0.01
        )
        assert ev.sliced_wasserstein(x, x[torch.randperm(300)]) < 1e-12

    def test_one_dimension_agrees_with_scipy_for_unequal_and_weighted_sets(self):
        from scipy.stats import wasserstein_distance

        x, y, log_w = draw(40, 1, seed=1), draw(25, 1, seed=2) + 0.5, draw(40, seed=3)
        want = wasserstein_distance(x[:, 0], y[:, 0])
        assert ev.sliced_wasserstein(x, y, slices=3) == pytest.approx(want, rel=1e-9)
        want = wasserstein_distance(x[:, 0], y[:, 0], u_weights=log_w.exp())
        assert ev.sliced_wasserstein(x, y, slices=3, log_wx=log_w) == pytest.approx(want, rel=1e-9)

    def test_the_floor_falls_with_the_number_of_samples(self):
        mixture = ev.exact_posterior(mixture_posterior())
        few, many = ev.floor(mixture, 100, slices=100)[0], ev.floor(mixture, 1600, slices=100)[0]
        assert 2 < few / many < 8

    def test_moments_of_exact_samples(self):
        exact = ev.exact_posterior(gaussian())
        x = exact.sample(20_000, 0)
        assert ev.variance_ratio(x, exact) == pytest.approx(1, abs=0.03)
        assert ev.mean_error(x, exact) == pytest.approx(0, abs=3 / math.sqrt(20_000))
        assert ev.variance_ratio(exact.mean + 0.5 * (x - exact.mean), exact) == pytest.approx(
            0.25, abs=0.01
        )
        mean, covariance = ev.moments(x)
        torch.testing.assert_close(covariance, torch.cov(x.T))
        assert ev.gaussian_kl(mean, covariance, exact.mean, exact.covariance) < 0.01

    def test_weights_turn_the_prior_into_the_posterior(self):
        post = mixture_posterior()
        x = post.prior.sample(20_000, 0)
        log_w, exact = post.likelihood.log_prob(x), ev.exact_posterior(post)
        assert ev.mean_error(x, exact, log_w) < 0.1 < ev.mean_error(x, exact)
        assert ev.variance_ratio(x, exact, log_w) == pytest.approx(1, abs=0.1)
        again = ev.resample(x, log_w, 3000)
        assert ev.mean_error(again, exact) < 0.1
        assert 100 < ev.effective_size(log_w) < 19_000
        assert ev.effective_size(torch.zeros(7)) == pytest.approx(7)
        assert ev.effective_size(torch.tensor([2.0, 1.0, 1.0]).log()) == pytest.approx(16 / 6)

    def test_gaussian_kl_agrees_with_torch(self):
        p, q = (draw(4, seed=1), spd(4, 1)), (draw(4, seed=2), spd(4, 2))
        law = torch.distributions.MultivariateNormal
        assert ev.gaussian_kl(*p, *q) == pytest.approx(
            float(torch.distributions.kl_divergence(law(*p), law(*q)))
        )
        with pytest.raises(ValueError, match="second covariance is not positive definite"):
            ev.gaussian_kl(*p, q[0], -q[1])

    def test_bad_samples_are_named(self):
        x = draw(5, 2)
        x[3, 0] = math.nan
        with pytest.raises(
            ValueError, match="1 of 5 samples are not finite, the first is sample 3"
        ):
            ev.sliced_wasserstein(x, draw(5, 2))
        with pytest.raises(ValueError, match="different spaces"):
            ev.sliced_wasserstein(draw(5, 2), draw(5, 3))
        with pytest.raises(ValueError, match="5 samples need 5 log-weights"):
            ev.resample(draw(5, 2), torch.zeros(4))


class TestCalibration:
    @pytest.mark.parametrize("n", [4, 9, 50])
    def test_exact_samples_cover_what_they_say(self, n):
        exact = ev.exact_posterior(gaussian())
        hits, truths = torch.zeros(2), 400
        for k in range(truths):
            x = exact.sample(n + 1, k)
            result = ev.coverage(x[:n], x[n], (0.5, 0.9))
            hits += torch.tensor([c.covered for c in result]) / truths
        for share, c in zip(hits.tolist(), result, strict=True):
            assert share == pytest.approx(c.nominal, abs=0.035)

    def test_the_nominal_level_is_one_that_n_samples_can_state(self):
        levels = ev.coverage(draw(4, 3), draw(3, seed=1), (0.5, 0.9))
        assert [c.nominal for c in levels] == [pytest.approx(3 / 5)] * 2
        assert ev.coverage(draw(19, 3), draw(3, seed=1), (0.9,))[0].nominal == pytest.approx(0.9)
        with pytest.raises(ValueError, match="at least 2 samples"):
            ev.coverage(draw(1, 3), draw(3))
        with pytest.raises(ValueError, match="between 0 and 1"):
            ev.coverage(draw(5, 3), draw(3), (90,))

    def test_narrow_samples_cover_too_little_and_rank_at_the_ends(self):
        truth = draw(2000, 1)
        (narrow,) = ev.coverage(0.3 * draw(19, 1, seed=5), truth, (0.9,))
        assert narrow.covered < 0.6
        counts = ev.rank_counts(0.3 * draw(19, 1, seed=5), truth)
        assert counts.sum() == 2000
        assert int(counts[0] + counts[-1]) > 800

    def test_ranks_of_exact_samples_are_uniform(self):
        counts = torch.stack(
            [ev.rank_counts(draw(9, 50, seed=k), draw(50, seed=1000 + k)) for k in range(60)]
        ).sum(0)
        expected = 60 * 50 / 10
        # 99.9 % of chi-square with 9 degrees of freedom
        assert float(((counts - expected) ** 2 / expected).sum()) < 28

    @pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
    def test_equal_numbers_bias_neither_ranks_nor_coverage(self, known):
        """Truth and samples of one law are exchangeable: with ties broken at random their ranks are
        uniform whatever the law."""
        problems, d, n, level = 50, 200, 9, 80
        counts, covered, shares = torch.zeros(n + 1), 0.0, []
        for k in range(problems):
            x = draw(n + 1, d, seed=k).clamp(-0.5, 1.0)
            x[:, : int(known * d)] = 0.3
            seed = k if known == 1 else 0  # where whole problems are the same numbers again
            (found,) = ev.coverage(x[:n], x[n], (level / 100,), seed=seed)
            places = ev.ranks(x[:n], x[n], seed=seed)
            shares.append(float(rank_tests.inside_share(places, n, level)))
            # One definition: what lies inside is said by the rank.
            assert found.covered == pytest.approx(shares[-1], abs=1e-12)
            covered += found.covered / problems
            counts += ev.rank_counts(x[:n], x[n], seed=seed)
        se = math.sqrt(0.8 * 0.2 / (problems * d))
        assert covered == pytest.approx(0.8, abs=4 * se)
        expected = problems * d / (n + 1)
        assert float(((counts - expected) ** 2 / expected).sum()) < 28
        # Problems are independent: known numbers of different problems do not fall to the same
        # places.
        assert torch.tensor(shares).std() == pytest.approx(math.sqrt(0.16 / d), rel=0.5)

    def test_places_among_equal_numbers_are_seeded_and_of_one_image(self):
        x = torch.zeros(19, 40, dtype=F64)
        x[0] = 1.0
        truth = torch.zeros(3, 40, dtype=F64)
        truth[1], truth[2] = 1.0, -1.0
        places = ev.ranks(x, truth)
        assert torch.equal(places, ev.ranks(x, truth))
        assert not torch.equal(places[:2], ev.ranks(x, truth, seed=1)[:2])
        assert torch.equal(places[1:2], ev.ranks(x, truth[1]))
        # 18 equal, none below: 0 to 18
        assert (int(places[0].min()), int(places[0].max())) == (0, 18)
        assert set(places[1].tolist()) == {18, 19}
        assert set(places[2].tolist()) == {0}

    def test_a_number_known_to_both_is_equal_whatever_its_precision(self):
        x, truth = torch.full((9, 500), 0.1), torch.full((500,), 0.1, dtype=F64)
        assert ev.coverage(x, truth, (0.8,))[0].covered == pytest.approx(
            0.8, abs=4 * math.sqrt(0.16 / 500)
        )


class TestImages:
    def test_psnr_does_not_depend_on_the_units(self):
        a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
        torch.testing.assert_close(
            ev.psnr(a, b, 1.0), ev.psnr(2 * a - 1, 2 * b - 1, 2.0), rtol=0, atol=1e-4
        )
        torch.testing.assert_close(
            ev.psnr(a, a + 0.1, 1.0), torch.full((2,), 20.0, dtype=F64), rtol=0, atol=1e-4
        )
        over = a.clone()
        over[0, 0, 0, 0] = 1.000001
        a[0, 0, 0, 0] = 1.0
        assert float((ev.psnr(over, b, 1.0) - ev.psnr(a, b, 1.0)).abs().max()) < 1e-4
        assert float(ev.psnr(a + 5, b, 1.0, clamp=(0, 1))[0]) > float(ev.psnr(a + 5, b, 1.0)[0])
        assert ev.psnr(a, a, 1.0).tolist() == [math.inf, math.inf]

    def test_a_phase_changes_complex_psnr_and_not_magnitude_psnr(self):
        a, b = (torch.complex(draw(1, 16, 16, seed=k), draw(1, 16, 16, seed=k + 1)) for k in (0, 5))
        turned = a * torch.exp(torch.tensor(0.7j))
        torch.testing.assert_close(
            ev.psnr(turned.abs(), b.abs(), 3.0), ev.psnr(a.abs(), b.abs(), 3.0)
        )
        assert float(ev.psnr(turned, a, 3.0)) < 20

    def test_ssim(self):
        a = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ev.ssim(a, a, (0, 1)), torch.ones(2, dtype=F64))
        noisy = a + 0.2 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
        want = ev.ssim(a, noisy, (0, 1))
        assert float(want.max()) < 0.95
        # The same pair in other ranges.
        for scale, shift, span in (
            (2.0, 0.0, (0, 2)),
            (2.0, -1.0, (-1, 1)),
            (255.0, 0.0, (0, 255)),
            (1.0, 5.0, (5, 6)),
        ):
            torch.testing.assert_close(
                ev.ssim(scale * a + shift, scale * noisy + shift, span), want, rtol=0, atol=1e-5
            )
        # What the field's package computes.
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        pairs = zip(a.double().numpy(), noisy.double().numpy(), strict=True)
        theirs = [
            structural_similarity(u, v, channel_axis=0, data_range=1.0, **options) for u, v in pairs
        ]
        torch.testing.assert_close(want, torch.tensor(theirs, dtype=F64), rtol=0, atol=1e-12)
        with pytest.raises(TypeError, match="black is not always 0"):
            ev.ssim(2 * a - 1, 2 * noisy - 1, 2.0)
        with pytest.raises(ValueError, match="11 x 11"):
            ev.ssim(a[..., :8, :8], a[..., :8, :8], (0, 1))

    def test_mistakes_are_named(self):
        with pytest.raises(ValueError, match="data_range is"):
            ev.psnr(torch.rand(1, 4), torch.rand(1, 4), 0.0)
        with pytest.raises(ValueError, match="cannot be compared"):
            ev.psnr(torch.rand(1, 4), torch.rand(1, 5), 1.0)

    def test_lpips_without_package_or_weights_says_so(self, monkeypatch):
        a = torch.rand(1, 1, 32, 32)
        monkeypatch.setitem(sys.modules, "lpips", None)
        with pytest.raises(ev.MetricUnavailable, match="install it"):
            ev.lpips(a, a, (0, 1))

        def offline(**options):
            raise OSError("no route")

        monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=offline))
        with pytest.raises(ev.MetricUnavailable, match="weights of 'alex' cannot be loaded"):
            ev.lpips(a, a, (0, 1))

    def test_lpips_gets_three_channels_between_minus_one_and_one(self, monkeypatch):
        class Net(torch.nn.Module):
            def forward(self, u, v):
                return torch.stack([u.amin(), u.amax()]).view(1, 2)

        monkeypatch.setitem(
            sys.modules, "lpips", types.SimpleNamespace(LPIPS=lambda **options: Net())
        )
        a = torch.tensor([[0.0, 255.0], [0.0, 255.0]])[None, None]
        assert ev.lpips(a, a, (0, 255)).tolist() == [-1.0, 1.0]

    def test_speckle_sees_one_per_cent_and_not_edges(self):
        h = torch.linspace(0, 1, 96)
        scene = ((h[:, None] * 7).sin() * (h * 5).cos() * 0.3 + 0.5) + 0.3 * (
            (h[:, None] > 0.4) & (h > 0.6)
        )
        scene = (scene + 0.01 * torch.randn(96, 96, generator=torch.Generator().manual_seed(0)))[
            None, None
        ]
        assert float(ev.speckle(scene)) < 5e-4
        hit = torch.rand(96, 96, generator=torch.Generator().manual_seed(1)) < 0.01
        salted = torch.where(
            hit,
            torch.where(
                torch.rand(96, 96, generator=torch.Generator().manual_seed(2)) < 0.5, 0.2, 0.9
            ),
            scene,
        )
        assert float(ev.psnr(salted, scene, 1.0)) > 25
        assert float(ev.speckle(salted)) == pytest.approx(0.01, rel=0.35)
        assert float(ev.speckle(torch.zeros(1, 1, 8, 8))) == 0


class TestWiener:
    def test_it_is_the_gaussian_posterior_mean(self):
        # A prior that is stationary on the circle with spectrum S: the exact mean of the dense
        # problem, with the DC of the prior very wide.
        H, strength, sigma = 6, 0.02, 0.1
        f = torch.fft.fftfreq(H, dtype=F64)
        f2 = f[:, None] ** 2 + f**2
        S = torch.where(f2 > 0, strength / f2.clamp(min=1e-9), 1e7)
        basis = torch.eye(H * H, dtype=F64).view(-1, H, H)
        C = torch.fft.ifft2(S * torch.fft.fft2(basis)).real.flatten(1)
        kernel = torch.tensor([[0.1, 0.2, 0.0], [0.05, 0.4, 0.1], [0.0, 0.1, 0.05]], dtype=F64)

        def blur(x):
            return sum(
                float(kernel[i, j]) * x.roll((i - 1, j - 1), (-2, -1))
                for i in range(3)
                for j in range(3)
            )

        A = po.operators.Dense(blur(basis).flatten(1).T.contiguous(), shape=(1, H, H))
        y = draw(1, H, H, seed=8)
        prior = po.priors.Gaussian(torch.zeros(1, H, H, dtype=F64), (C + C.T) / 2)
        exact = ev.exact_posterior(
            po.Posterior(prior, po.Likelihood(y.flatten(), A, po.noise.Gaussian(sigma)))
        )
        torch.testing.assert_close(
            ev.wiener(y, kernel, sigma, strength), exact.mean, rtol=0, atol=1e-5
        )

    def test_the_best_one_beats_the_measurement_and_its_neighbours(self):
        h = torch.linspace(0, 1, 64, dtype=F64)
        scene = 0.5 + 0.3 * torch.sign((h[:, None] * 9).sin() * (h * 7).cos())[None]
        kernel = torch.ones(5, 5, dtype=F64) / 25
        y = torch.stack(
            [scene[0].roll((i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)]
        ).mean(0)[None] + 0.02 * draw(1, 64, 64)
        estimate, strength, score = ev.best_wiener(y, kernel, 0.02, scene)
        assert score > float(ev.psnr(y[None], scene, 1.0)) + 1
        for factor in (0.3, 3):
            assert (
                float(ev.psnr(ev.wiener(y, kernel, 0.02, strength * factor)[None], scene, 1.0))
                <= score
            )
        assert estimate.shape == y.shape
        with pytest.raises(ValueError, match="sums to 0"):
            ev.wiener(y, torch.tensor([[1.0, -1.0]]), 0.02)
        with pytest.raises(ValueError, match="sigma > 0"):
            ev.wiener(y, kernel, 0.0)


def image_posterior(sigma=0.05, range=(0, 1), n=16):
    """Denoising: everything about its posterior is known pixel by pixel."""
    d = n * n
    prior = po.priors.Gaussian(torch.zeros(1, n, n, dtype=F64), 0.09, range=(-1, 1))
    A = po.operators.Dense(torch.eye(d, dtype=F64), shape=(1, n, n))
    truth = (prior.sample(1, 7)[0] + 1) / 2
    y = truth.flatten() + sigma * draw(d, seed=11)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma), range=range)), truth


class TestSummary:
    def test_exact_samples_raise_no_flag(self):
        post, truth = image_posterior()
        exact = ev.exact_posterior(post)
        record = ev.summary(made(exact.sample(64, 0)), post, truth)
        assert record["flags"] == []
        assert record["chi2_samples"] == pytest.approx(1, abs=0.2)
        assert record["spread"] == pytest.approx(float(exact.std.mean()), rel=0.05)
        # One sample is as far from the mean as the truth is: sqrt(2) times the error of the mean.
        assert record["rmse_sample"] / record["rmse_mean"] == pytest.approx(math.sqrt(2), rel=0.08)
        assert record["rmse_mean"] == pytest.approx(record["rmse_expected"], rel=0.1)
        assert record["psnr_mean"] - record["psnr_sample"] == pytest.approx(3.01, abs=0.6)
        assert record["data_range_from"] == "stated range"
        for c in record["coverage"]:
            assert c["covered"] == pytest.approx(c["nominal"], abs=0.08)
        assert json.loads(json.dumps(record)) == record

    def test_it_needs_no_reference(self):
        post, _ = image_posterior()
        record = ev.summary(made(ev.exact_posterior(post).sample(4, 0)), post)
        assert record["psnr_mean"] is None
        assert record["coverage"] is None
        assert record["chi2_mean"] < record["chi2_samples"]

    def test_a_wrong_unit_of_sigma_is_flagged(self):
        post, _ = image_posterior()
        samples = ev.exact_posterior(post).sample(8, 0)
        low = replace(post.given, noise=po.noise.Gaussian(0.05 / 4))
        (sentence,) = ev.summary(made(samples), po.Posterior(post.prior, low))["flags"]
        assert "residual is 4.0 times the stated noise" in sentence
        high = replace(post.given, noise=po.noise.Gaussian(0.05 * 4))
        (sentence,) = ev.summary(made(samples), po.Posterior(post.prior, high))["flags"]
        assert "only 0.25 times the stated noise" in sentence

    def test_a_complex_measurement_counts_twice_in_the_room_that_a_residual_has(self):
        """Of m real numbers chi2 scatters by sqrt(2 / m): 2.7 is too much for 16 of them, and would
        not be for 8."""
        prior = po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 8, dtype=F64), 1.0))
        A = po.operators.Dense(torch.eye(8, dtype=torch.complex128))
        law = po.noise.ComplexGaussian(sigma_per_channel=0.1)
        post = po.Posterior(prior, po.Likelihood(torch.zeros(8, dtype=torch.complex128), A, law))
        x = torch.full((1, 8), 0.1 * math.sqrt(2.7), dtype=torch.complex128) * (1 + 1j)
        x = x * torch.exp(1j * torch.arange(8))
        record = ev.summary(made(x), post)
        assert record["chi2_samples"] == pytest.approx(2.7)
        assert any("times the stated noise" in sentence for sentence in record["flags"])

    def test_narrow_equal_and_collapsed_samples_are_flagged(self):
        post, truth = image_posterior()
        exact = ev.exact_posterior(post)
        x = exact.sample(30, 0)
        narrow = ev.summary(made(exact.mean + 0.2 * (x - exact.mean)), post, truth)["flags"]
        assert any("under-dispersed" in sentence for sentence in narrow)
        wide = ev.summary(made(exact.mean + 3 * (x - exact.mean)), post, truth)["flags"]
        assert any("over-dispersed" in sentence for sentence in wide)
        same = ev.summary(made(x[:1].expand(5, -1, -1, -1)), post)["flags"]
        assert any("point estimate" in sentence for sentence in same)
        log_w = torch.zeros(30, dtype=F64)
        log_w[4] = 40.0
        collapsed = ev.summary(made(x, log_w=log_w), post)
        assert any("30 samples count as 1.0" in sentence for sentence in collapsed["flags"])

    def test_an_image_of_one_value_is_flagged_with_nothing_measured(self):
        post = po.Posterior(
            po.priors.Gaussian(torch.zeros(1, 16, 16, dtype=F64), 1.0),
            po.Likelihood(
                torch.zeros(1, dtype=F64), po.operators.Null((1, 16, 16)), po.noise.Gaussian(1.0)
            ),
        )
        said = "100 % of the samples have the same value everywhere"
        for values in ([0.0], [0.3], [0.1, 0.2, 0.7]):
            x = torch.tensor(values, dtype=F64)[:, None, None, None].expand(-1, 1, 16, 16)
            assert any(said in sentence for sentence in ev.summary(made(x), post)["flags"])
            # Real samples differ from pixel to pixel.
            assert ev.summary(made(x + 0.01 * draw(len(x), 1, 16, 16)), post)["flags"] == []
        ranged, _ = image_posterior()
        grey = made(0.5 + 1e-4 * draw(1, *ranged.shape))
        assert any(said in sentence for sentence in ev.summary(grey, ranged)["flags"])

    def test_speckle_range_and_divergence_are_flagged(self):
        post, truth = image_posterior(n=32)
        smooth = torch.linspace(0, 1, 32, dtype=F64).expand(4, 1, 32, 32).clone() + 0.001 * draw(
            4, 1, 32, 32
        )
        assert not any(
            "speckle" in sentence for sentence in ev.summary(made(smooth), post)["flags"]
        )
        hit = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(3)) < 0.01
        record = ev.summary(made(torch.where(hit, 1 - smooth.round(), smooth)), post)
        assert any("speckle" in sentence for sentence in record["flags"])
        outside = ev.summary(made(2 * smooth - 1), post)["flags"]
        assert any("outside the stated [0, 1]" in sentence for sentence in outside)
        status = (Status(), Status(), Status(), Status("diverged", 7, "use more steps"), Status())
        lost = ev.summary(made(smooth, status=status), post)
        assert lost["diverged"] == 1
        assert any(
            "1 of 5 rows diverged and are left out: diverged at step 7: use more steps" in s
            for s in lost["flags"]
        )
        with pytest.raises(ValueError, match=r"reference spans .* expressed in \[0, 1\]"):
            ev.summary(made(smooth), post, 255 * truth)
        with pytest.raises(ValueError, match="reference has shape"):
            ev.summary(made(smooth), post, truth[0])

    def test_few_measurements_are_given_room(self):
        post = gaussian(m=2)
        far = po.Posterior(post.prior, replace(post.given, noise=po.noise.Gaussian(0.3)))
        record = ev.summary(made(ev.exact_posterior(far).sample(50, 0)), far)
        assert record["flags"] == []
        assert record["speckle"] is None

    def test_noise_of_level_zero_has_a_residual_and_no_chi2(self):
        post, truth = image_posterior()
        noiseless = po.Posterior(post.prior, replace(post.given, noise=po.noise.Gaussian(0.0)))
        record = ev.summary(made(truth.expand(3, -1, -1, -1) + 0.1 * draw(3, 1, 16, 16)), noiseless)
        assert record["chi2_samples"] is None
        assert record["residual_rms"] == pytest.approx(math.sqrt(0.1**2 + 0.05**2), rel=0.1)

    def test_complex_images_are_compared_by_magnitude_and_as_numbers(self):
        class Complex(po.priors.Prior):
            def denoise(self, x, sigma):
                return x / (1 + sigma**2)

        d = 16 * 16
        prior = Complex((1, 16, 16), variance=1.0, sigma_max=10.0, sigma_min=0.01, complex=True)
        truth = torch.complex(draw(1, 16, 16), draw(1, 16, 16, seed=1))
        A = po.operators.Dense(torch.eye(d, dtype=torch.complex128), shape=(1, 16, 16))
        post = po.Posterior(
            prior,
            po.Likelihood(truth.flatten(), A, po.noise.ComplexGaussian(sigma_per_channel=0.1)),
        )
        turned = truth * torch.exp(torch.tensor(0.7j))
        record = ev.summary(made(turned.expand(3, -1, -1, -1)), post, truth)
        assert record["numbers"] == "magnitude"
        assert record["psnr_sample"] > 100
        assert record["psnr_complex_sample"] < 25
        assert record["data_range"] == pytest.approx(float(truth.abs().max()))


class TestWeightedSummary:
    def run(self):
        """Forty samples around the posterior that count, and as many far away that do not."""
        x = torch.cat([draw(40, 5, seed=3), 30 + draw(40, 5, seed=4)])
        return made(
            x, log_w=torch.cat([torch.zeros(40, dtype=F64), torch.full((40,), -60.0, dtype=F64)])
        )

    def test_intervals_and_misfit_are_those_of_the_samples_that_count(self):
        post, run = gaussian(), self.run()
        record = ev.summary(run, post, torch.zeros(5, dtype=F64))
        few = ev.summary(made(run.samples[:40]), post, torch.zeros(5, dtype=F64))
        for ours, theirs in zip(record["coverage"], few["coverage"], strict=True):
            assert ours["width"] == pytest.approx(theirs["width"], rel=0.2)
        for name in (
            "chi2_samples",
            "chi2_mean",
            "residual_rms",
            "rmse_sample",
            "rmse_mean",
            "rmse_expected",
            "effective_samples",
        ):
            assert record[name] == pytest.approx(few[name], rel=1e-6), name

    def test_the_mean_is_expected_to_be_off_by_the_spread_and_by_its_own_error(self):
        """E |mean - x|^2 over an exchangeable truth x is (1 + 1/n) times the variance, in each
        number."""
        samples = draw(4, 5, seed=5)
        record = ev.summary(made(samples), gaussian(), torch.zeros(5, dtype=F64))
        assert record["rmse_expected"] == pytest.approx(
            float((1.25 * samples.var(0).mean()).sqrt())
        )
