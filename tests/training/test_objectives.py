"""What the objectives make of corrupted data: the minimiser of Ambient Diffusion and of GSURE
against conditional expectations of a Gaussian, the risk of GSURE against the error that it
estimates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import ambient as seen_through
from cases import mixture, toy_unet
from reference import REPOSITORY
from torch import nn
from trainings import masked, same, written

from posteriori.priors import Ambient, Network, edm, from_pretrained
from posteriori.training import trainer
from posteriori.training.config import TrainingConfig, read_config
from posteriori.training.export import export, variance
from posteriori.training.masked import read_masked
from posteriori.training.objectives import ambient, gsure, noise
from posteriori.training.sources import crops

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3], dtype=F64)
COV = torch.tensor([[1.0, 0.7], [0.7, 1.5]], dtype=F64)
LEVEL = 0.8


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan(objective, std=0.0, level=LEVEL):
    """A configuration with one noise level, whose data are made in the test."""
    return TrainingConfig.model_validate(
        {
            "name": "toy",
            "objective": objective,
            "network": {"channels": 1, "widths": [8], "blocks": [1], "embedding": 8},
            "data": {
                "kind": "masked",
                "file": "none.npz",
                "window": [-1, 1],
                "crop": 2,
                "noise": std,
            },
            "noise": {"log_mean": math.log(level), "log_std": 1e-9},
            "optimizer": {"rate": 1e-3, "decay": 1},
            "card": {
                "description": "d",
                "training_data": "t",
                "licence": "CC0",
                "sigma_max": 10.0,
                "sigma_min": 0.6,
            },
            "steps": 1,
            "batch": 1,
            "autocast": "none",
        }
    )


class Table(nn.Module):
    """Of two pixels, an affine map of its own for each mask."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 2, 2, dtype=F64))
        self.bias = nn.Parameter(torch.zeros(4, 2, dtype=F64))

    def forward(self, x, label, mask=None):
        flat = x.flatten(1)
        bits = torch.ones_like(flat) if mask is None else mask.flatten(1)
        which = (2 * bits[:, 0] + bits[:, 1]).long()
        out = torch.einsum("bij,bj->bi", self.weight[which], flat) + self.bias[which]
        return out.view(x.shape)


def minimiser(loss, net):
    """Set ``net`` to the minimum of a quadratic loss by one Newton step from 0; returns its
    Hessian."""
    parameters = list(net.parameters())
    total = sum(p.numel() for p in parameters)

    def gradient(theta):
        nn.utils.vector_to_parameters(theta, parameters)
        grads = torch.autograd.grad(loss(net), parameters)
        return torch.cat([g.flatten() for g in grads])

    start = gradient(torch.zeros(total, dtype=F64))
    unit = torch.eye(total, dtype=F64)
    hessian = torch.stack([gradient(unit[k]) - start for k in range(total)])
    nn.utils.vector_to_parameters(-torch.linalg.pinv(hessian, rtol=1e-9) @ start, parameters)
    return hessian


def affine(net, which, sigma, seen=(0, 1), d=0.5):
    """D = coefficients x + intercept of a ``Table`` under the preconditioning of ``priors.edm``; of
    pixels that are not seen, under that of the level infinity."""
    total = math.sqrt(sigma**2 + d**2)
    out = torch.tensor([sigma * d / total if k in seen else d for k in (0, 1)], dtype=F64)
    skip = torch.tensor([(d / total) ** 2 if k in seen else 0.0 for k in (0, 1)], dtype=F64)
    coefficients = skip.diag() + out[:, None] / total * net.weight[which]
    return coefficients.detach(), (out * net.bias[which]).detach()


def wiener(seen, sigma):
    """E[x0 | x0 + sigma z at the seen pixels] = coefficients x + intercept."""
    K = torch.zeros(2, 2, dtype=F64)
    within = COV[seen][:, seen] + sigma**2 * torch.eye(len(seen), dtype=F64)
    K[:, seen] = COV[:, seen] @ torch.linalg.inv(within)
    return K, MEAN - K @ MEAN


def images(count, keep=1.0, std=0.0):
    """Rows (count, 2, 1, 2): measured pixels of a Gaussian, and their masks."""
    rng = np.random.default_rng(5)
    x0 = rng.multivariate_normal(MEAN.numpy(), COV.numpy(), count) + std * rng.standard_normal(
        (count, 2)
    )
    seen = (rng.random((count, 2)) < keep).astype(float)
    return torch.from_numpy(np.stack([x0 * seen, seen], 1)).view(count, 2, 1, 2)


@pytest.fixture(scope="module")
def ambient_table():
    config, batch, net = plan({"name": "ambient", "further": 0.5}), images(250_000, 0.8), Table()
    minimiser(lambda net: ambient.loss(net, batch, config, 0), net)
    return net


@pytest.mark.parametrize("seen", [[], [0], [1], [0, 1]])
def test_ambient_learns_the_expectation_given_the_further_masked_image(ambient_table, seen):
    """Pixels hidden from the network included. The standard error of a coefficient is at most
    0.005."""
    which = 2 * (0 in seen) + (1 in seen)
    (K, intercept), (exact, offset) = (
        affine(ambient_table, which, LEVEL, seen),
        wiener(seen, LEVEL),
    )
    torch.testing.assert_close(K[:, seen], exact[:, seen], rtol=0, atol=0.02)
    torch.testing.assert_close(intercept, offset, rtol=0, atol=0.02)


def test_a_loss_over_what_the_network_sees_teaches_nothing_of_hidden_pixels():
    """The control: without further masks the loss is over the mask that the network sees."""
    config, batch, net = plan({"name": "ambient", "further": 1e-12}), images(20_000, 0.6), Table()
    hessian = minimiser(lambda net: ambient.loss(net, batch, config, 0), net)
    for which, hidden in ((2, 1), (1, 0)):
        rows = [4 * which + 2 * hidden + k for k in range(2)] + [16 + 2 * which + hidden]
        assert not bool(hessian[rows].any())
        bias = float(affine(net, which, LEVEL, [1 - hidden])[1][hidden])
        assert bias == pytest.approx(0, abs=1e-12)
        assert abs(float(wiener([1 - hidden], LEVEL)[1][hidden])) > 0.3


def test_hidden_pixels_are_targets_of_unit_variance_at_every_level():
    """A network of 0 has D = 0 there, whatever the level: the loss is E x0^2 / d^2."""
    for level in (0.01, 1.0, 20.0):
        config, batch = plan({"name": "ambient", "further": 0.999}, level=level), images(20_000)
        value = float(ambient.loss(Table(), batch, config, 0).detach())
        second = float((COV.diagonal() + MEAN**2).mean())
        assert value == pytest.approx(4 * second, rel=0.05)
    seen, level = torch.tensor([1.0, 0.0]), torch.tensor(0.3)
    factor = edm.of_hidden(level, 0.4, seen)
    # 0.5 is the length of (0.3, 0.4): c_out = 0.3 * 0.4 / 0.5 there, and 0.4 is wanted.
    torch.testing.assert_close(factor, torch.tensor([1.0, 0.4 / (0.3 * 0.4 / 0.5)]))


def test_further_masks_are_drawn_for_each_image_and_step():
    seen = []

    class Watching(Table):
        def forward(self, x, label, mask=None):
            seen.append(mask)
            return super().forward(x, label, mask)

    config, batch = plan({"name": "ambient", "further": 0.3}), images(8000, 0.6)
    for step in (0, 1, 0):
        ambient.loss(Watching(), batch, config, step)
    mask = batch[:, -1:]
    assert all(bool((m <= mask).all()) for m in seen)
    shares = [float(m.sum() / mask.sum()) for m in seen]
    assert shares == pytest.approx([0.7] * 3, abs=5 * (0.3 * 0.7 / 9000) ** 0.5)
    assert torch.equal(seen[0], seen[2])
    both = mask.bool()
    agree = float((seen[0] == seen[1])[both].double().mean())
    assert agree == pytest.approx(0.7**2 + 0.3**2, abs=5 * 0.5 / 9000**0.5)


def test_gsure_estimates_the_error_without_bias():
    """A mixture's denoiser, which is not linear, on noisy pixels of which some are missing, at
    levels from that of the data to four times it: three standard errors. Without the divergence
    the estimate is off by more than twenty."""
    prior, count, std = mixture(shape=(1, 2, 2)), 60_000, 0.5
    g = torch.Generator().manual_seed(1)
    x0 = prior.sample(count, seed=3)
    mask = (torch.rand(count, 1, 2, 2, generator=g, dtype=F64) < 0.7).to(F64)
    mask[:, :, 0, 0] = 1
    n, e = (torch.randn(x0.shape, generator=g, dtype=F64) for _ in range(2))
    ybar = mask * (x0 + std * n)
    u = 2.0 * torch.randint(0, 2, x0.shape, generator=g) - 1
    sigma = std * 4 ** torch.rand(count, 1, 1, 1, generator=g, dtype=F64)
    x = gsure.noised(ybar, mask, sigma, std, e)

    def denoised(v):
        return prior.denoise(v, torch.tensor(0.9, dtype=F64))

    error = noise.over_measured((denoised(x) - x0).square(), mask)
    for probe, limit in ((u, 3.0), (torch.zeros_like(u), None)):
        gap = gsure.risk(denoised, x, ybar, mask, std, probe).detach() - error
        deviations = float(gap.mean() / (gap.std() / count**0.5))
        assert abs(deviations) < limit if limit else deviations < -20


def test_gsure_of_complete_images_learns_the_wiener_filter():
    """At sigma^2 = s0^2 + tau^2, from noisy images alone; the standard error is at most 0.005."""
    std, config = 0.6, plan("gsure", std=0.6)
    sigma, net, batch = math.hypot(LEVEL, std), Table(), images(100_000, std=std)
    minimiser(lambda net: gsure.loss(net, batch, config, 0), net)
    for ours, exact in zip(affine(net, 3, sigma), wiener([0, 1], sigma), strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=0.02)


def test_levels_below_the_noise_of_the_data_are_refused():
    ybar, mask = torch.zeros(2, 1, 1, 2), torch.ones(2, 1, 1, 2)
    sigma = torch.tensor([0.6, 0.49]).view(2, 1, 1, 1)
    with pytest.raises(ValueError, match="no level below the noise of the data: sigma 0.49 is"):
        gsure.noised(ybar, mask, sigma, 0.5, ybar)
    same_level = gsure.noised(ybar, mask, torch.full((2, 1, 1, 1), 0.5), 0.5, ybar + 1)
    assert torch.equal(same_level, ybar)
    with pytest.raises(ValueError, match=r"card.sigma_min is 0.6, data.noise is 0.7 in images of"):
        plan("gsure", std=0.7)


CASES = {"ambient": 0.0, "gsure": 0.01}


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_each_objective_goes_on_to_the_same_bits_and_becomes_a_prior(name, tmp_path):
    data = masked(tmp_path, noise=CASES[name])

    def file(steps):
        return read_config(written(tmp_path, data=data, objective=name, steps=steps, card=card()))

    trainer.train(file(4), tmp_path / "straight", progress=False)
    trainer.train(file(2), tmp_path / "parts", progress=False)
    trainer.train(file(4), tmp_path / "parts", progress=False)
    straight, parts = (
        torch.load(tmp_path / place / "checkpoint.pt", weights_only=True)
        for place in ("straight", "parts")
    )
    assert same(straight, parts)
    assert parts["history"][-1]["held_out"] is not None
    export(file(4), tmp_path / "parts", tmp_path / "prior", samples=2, steps=2)
    prior = from_pretrained(tmp_path / "prior")
    assert list(prior.conditions) == (["mask"] if name == "ambient" else [])
    assert prior.errors is None
    assert (tmp_path / "prior" / "samples.png").exists()
    # Stripes of -1 and 1 with equal chances; 24 images, most of which measured a pixel.
    assert prior.variance == pytest.approx(1.0, abs=0.1)


def card(**changes):
    values = {"description": "d", "training_data": "t", "licence": "CC0"}
    return values | {"sigma_max": 10.0, "sigma_min": 0.02} | changes


@pytest.mark.parametrize(
    ("objective", "noise_std", "message"),
    [
        ("score-matching", 0.0, "learns from complete images without noise, got data of kind"),
        ("ambient", 0.1, r"measurements without noise, got data.noise 0.1; take gsure"),
        ("gsure", 0.1, r"card.sigma_min is 0.02, data.noise is 0.1 in images"),
        ("blur", 0.0, "objective: .*ambient"),
        ({"name": "ambient", "further": 1.0}, 0.0, r"objective.ambient.further: .*less than 1"),
    ],
)
def test_objectives_and_data_that_do_not_fit_are_refused(objective, noise_std, message, tmp_path):
    file = written(
        tmp_path, data=masked(tmp_path, noise=noise_std), objective=objective, card=card()
    )
    with pytest.raises(ValueError, match=message):
        read_config(file)


def test_complete_images_are_no_data_for_the_other_objectives(tmp_path):
    with pytest.raises(ValueError, match="objective gsure learns from data of kind: masked, got a"):
        read_config(written(tmp_path, objective="gsure"))


@pytest.mark.parametrize("name", ["masked", "scans"])
def test_the_examples_are_trained(name, tmp_path):
    plan = read_config(REPOSITORY / "examples" / "training" / f"{name}.yaml")
    short = plan.model_copy(update={"steps": 1, "batch": 2, "threads": torch.get_num_threads()})
    trainer.train(short, tmp_path, progress=False)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def read(folder, **changes):
    values = {"kind": "masked", "file": "m.npz", "key": "y", "window": [0, 4], "crop": 2}
    config = written(folder, data=values | changes, objective="ambient", held_out={"share": 0})
    return read_masked(read_config(config).data, 1)


def test_masked_images_are_read_by_their_masks_or_by_what_is_nan(tmp_path):
    y = np.array([[[0.0, 4.0], [3.0, 1.0]], [[2.0, 9.0], [2.0, 4.0]]])
    seen = np.array([[[1, 0], [1, 1]], [[1, 0], [0, 1]]])
    np.savez(tmp_path / "m.npz", y=y, seen=seen, nan=np.where(seen, y, np.nan), wrong=2 * seen)
    first, second = read(tmp_path, masks="seen")
    assert first.shape == (2, 2, 2)
    np.testing.assert_array_equal(first[..., 0], [[-1, 0], [0.5, -0.5]])
    np.testing.assert_array_equal(second[..., 1], seen[1])
    for a, b in zip(read(tmp_path, key="nan"), (first, second), strict=True):
        np.testing.assert_array_equal(a, b)
    for changes, message in (
        ({}, r"measured values from 0 to 9, outside the window \[0, 4\]"),
        ({"masks": "wrong"}, "masks of 0 and 1 and of shape"),
        ({"masks": "seen", "turns": False}, r"1 pixels are measured in no image.* \(0, 1\)"),
        ({"masks": "absent"}, "there is no array 'absent'"),
        ({"key": "nan", "masks": "seen", "window": [0, 3]}, "outside the window"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, **changes)
    np.savez(tmp_path / "m.npz", y=np.stack([y[0], np.full((2, 2), np.nan)]))
    with pytest.raises(ValueError, match="nothing was measured of image 1"):
        read(tmp_path)
    np.savez(tmp_path / "m.npz", y=np.where(seen, y, np.inf), seen=1 - 0 * seen)
    with pytest.raises(ValueError, match="3 measured values are not finite"):
        read(tmp_path, masks="seen")


def test_crops_of_masked_images_carry_their_masks(tmp_path):
    data = masked(tmp_path, side=12)
    config = read_config(written(tmp_path, data=data | {"crop": 4}, objective="ambient"))
    y, mask = noise.numbers_and_mask(crops(config).batch(50, 0, 0))
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(y.abs(), mask)


def test_the_variance_of_noisy_masked_images_is_that_of_the_images(tmp_path):
    data = masked(tmp_path, noise=0.8, count=4000)
    config = read_config(written(tmp_path, data=data, objective="gsure", card=card(sigma_min=0.9)))
    assert variance(config, 4000) == pytest.approx(1.0, abs=0.03)
    louder = config.model_copy(update={"data": config.data.model_copy(update={"noise": 1.5})})
    with pytest.raises(ValueError, match="no more than their noise, 2.25: data.noise is too large"):
        variance(louder)


def test_a_network_seen_through_a_mask_knows_nothing_of_what_it_hides():
    prior, g = seen_through(F64), torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 7, 12, generator=g, dtype=F64)
    moved = x + torch.randn(x.shape, generator=g, dtype=F64) * ~prior.mask
    assert torch.equal(prior.denoise(x, torch.tensor(0.7)), prior.denoise(moved, torch.tensor(0.7)))
    whole = Ambient(prior.network, torch.ones(7, 12, dtype=torch.bool))
    assert torch.equal(
        whole.denoise(x, torch.tensor(0.7)), prior.network.denoise(x, torch.tensor(0.7))
    )


def test_what_cannot_be_seen_through_a_mask_is_refused():
    net = seen_through(F64).network
    with pytest.raises(ValueError, match="needs a Network of .* with the condition 'mask'"):
        Ambient(
            Network(toy_unet(), shape=(1, None, None), multiple=4, sigma_data=0.5),
            torch.ones(4, 4, dtype=torch.bool),
        )
    for mask in (torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool), torch.ones(4) > 0):
        with pytest.raises(ValueError, match="Ambient needs a boolean mask"):
            Ambient(net, mask)
