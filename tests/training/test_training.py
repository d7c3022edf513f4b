"""Training: exact resume, a loss that falls, configurations that are refused, and the way from a
run to a saved prior."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from trainings import same

from posteriori.priors import Network, edm, from_pretrained
from posteriori.priors.pretrained import read_card
from posteriori.training import sources, trainer
from posteriori.training.config import TrainingConfig, read_config
from posteriori.training.data import Crops, read_folders, read_npz_pictures
from posteriori.training.export import errors, export, sheet, variance


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def settings(**changes):
    values = {
        "name": "toy",
        "network": {"channels": 1, "widths": [8], "blocks": [1], "embedding": 8},
        "data": {"kind": "npz", "file": "toy.npz", "key": "train", "crop": 8},
        "noise": {"log_mean": -0.5, "log_std": 1.0},
        "optimizer": {"name": "adamw", "rate": 3e-3, "warmup": 2, "decay": 1},
        "card": {
            "description": "stripes",
            "training_data": "drawn",
            "licence": "CC0",
            "sigma_max": 10.0,
            "sigma_min": 0.01,
        },
        "steps": 6,
        "batch": 4,
        "ema": 0.9,
        "autocast": "none",
        "threads": torch.get_num_threads(),
        "checkpoint_every": 3,
    }
    return values | changes


def stripes(folder, n=64):
    """Images 8x8 whose columns are constant: the noise off that subspace is easily removed."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 2, (n, 1, 8), dtype=np.uint8) * 255
    np.savez(folder / "toy.npz", train=np.broadcast_to(columns, (n, 8, 8)))


@pytest.fixture
def config(tmp_path):
    stripes(tmp_path)

    def make(**changes):
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(**changes)))
        return read_config(tmp_path / "toy.yaml")

    return make


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_three_steps_and_three_more_are_six_steps(config, tmp_path, optimizer):
    if optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    kind = {"name": optimizer, "rate": 3e-3, "warmup": 2, "decay": 1}
    trainer.train(config(optimizer=kind), tmp_path / "straight", progress=False)
    trainer.train(config(optimizer=kind, steps=3), tmp_path / "parts", progress=False)
    assert checkpoint(tmp_path / "parts")["step"] == 3
    trainer.train(config(optimizer=kind), tmp_path / "parts", progress=False)
    assert checkpoint(tmp_path / "parts")["step"] == 6
    assert same(checkpoint(tmp_path / "straight"), checkpoint(tmp_path / "parts"))
    assert list((tmp_path / "parts").iterdir()) == [tmp_path / "parts" / "checkpoint.pt"]


def test_a_killed_run_goes_on_to_the_same_bits(config, tmp_path, monkeypatch):
    decaying = {"rate": 3e-3, "warmup": 2, "decay": 4}
    straight = trainer.train(config(optimizer=decaying), tmp_path / "straight", progress=False)
    loss = trainer.loss

    def dying(network, x0, config, step):
        if step == 4:
            raise KeyboardInterrupt
        return loss(network, x0, config, step)

    monkeypatch.setattr(trainer, "loss", dying)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(config(optimizer=decaying), tmp_path / "killed", progress=False)
    monkeypatch.undo()
    resumed = trainer.train(config(optimizer=decaying), tmp_path / "killed", progress=False)
    assert same(straight.state_dict(), resumed.state_dict())
    assert same(checkpoint(tmp_path / "straight"), checkpoint(tmp_path / "killed"))


def test_the_loss_falls_and_the_prior_knows_its_images(config, tmp_path):
    wide = {"channels": 1, "widths": [16, 16], "blocks": [1, 1], "embedding": 16}
    plan = config(
        network=wide,
        steps=150,
        batch=32,
        optimizer={"rate": 5e-3, "warmup": 10, "decay": 50},
        checkpoint_every=150,
    )
    held_out = sources.crops(plan).batch(64, seed=1, step=0)

    def value(network):
        with torch.no_grad():
            return float(
                np.mean(
                    [trainer.loss(network, held_out, plan, 10_000 + k).item() for k in range(4)]
                )
            )

    before = value(trainer.UNet(**plan.network.model_dump()))
    after = value(trainer.train(plan, tmp_path / "run", progress=False))
    assert after < 0.6 * before, f"loss {before:.3f} before, {after:.3f} after"


class Recorder(torch.nn.Module):
    """A raw network that returns the square of its input and keeps what it was asked."""

    def forward(self, x, label):
        self.x, self.level = x, (4 * label).exp().view(-1, 1, 1, 1)
        return x.square()


def asked(config, x0, step):
    """What a batch was turned into: loss, network input in unit variance, noise level and noise of
    each image."""
    network = Recorder()
    value = trainer.loss(network, x0, config, step)
    noisy = network.x * (network.level**2 + config.sigma_data**2).sqrt()
    return float(value), network.x, network.level, (noisy - x0) / network.level


def test_the_weight_makes_every_noise_level_a_regression_of_unit_variance(config):
    """w = 1 / c_out^2, so that the loss is the plain mean of (F - (x0 - c_skip x) / c_out)^2,
    whatever the levels."""
    plan, x0 = config(), 0.5 * torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    value, inner, level, z = asked(plan, x0, 3)
    total2 = level**2 + 0.25
    target = (x0 - 0.25 / total2 * (x0 + level * z)) / (0.5 * level / total2.sqrt())
    assert value == pytest.approx(float((inner.square() - target).square().mean()), rel=1e-4)
    assert float(level.max() / level.min()) > 20


def test_noise_and_its_level_are_fresh_for_every_image_and_step(config):
    """ln(sigma) ~ N(-0.5, 0.7^2) and z ~ N(0, 1), independent between images and between steps:
    five standard errors."""
    plan, n = config(noise={"log_mean": -0.5, "log_std": 0.7}), 4000
    x0 = torch.zeros(n, 1, 2, 2)
    (_, _, level, z), (_, _, other, fresh) = asked(plan, x0, 3), asked(plan, x0, 4)
    logs = level.flatten().log()
    assert abs(float(logs.mean()) + 0.5) < 5 * 0.7 / n**0.5
    assert abs(float(logs.std()) / 0.7 - 1) < 5 / (2 * n) ** 0.5
    assert (
        float((z.flatten(1).T @ z.flatten(1) / n - torch.eye(4)).abs().max()) < 5 * (2 / n) ** 0.5
    )
    rows = z.flatten(1)
    for a, b in (
        (rows[: n // 2], rows[n // 2 :]),
        (rows, fresh.flatten(1)),
        (logs + 0.5, other.flatten().log() + 0.5),
    ):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5
    again = asked(plan, x0, 3)
    assert torch.equal(again[2], level)
    assert torch.equal(again[3], z)


def test_the_average_keeps_its_share_of_itself_and_rates_rise_and_fall(
    config, tmp_path, monkeypatch
):
    """average <- keep average + (1 - keep) network, keep = min(ema, (1 + k) / (10 + k)); rates
    k / warmup, 1, and to 0 over ``decay``."""
    plan = config(
        steps=6,
        ema=0.3,
        held_out={"share": 0},
        optimizer={"rate": 0.01, "warmup": 2, "decay": 3, "clip": 0.05},
    )
    seen, rates, norms, batches = [], [], [], []
    step, loss = trainer.Rates.step, trainer.loss

    def watched(self, fraction):
        step(self, fraction)
        rates.append(self.parts[0].param_groups[0]["lr"])
        seen.append([p.detach().clone() for p in self.network.parameters()])
        assert all(p.grad is None or not bool(p.grad.any()) for p in self.network.parameters())

    def clipped(optimiser, closure=None):
        grads = [
            p.grad
            for group in optimiser.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))
        return plain(optimiser)

    plain = torch.optim.AdamW.step
    monkeypatch.setattr(trainer.Rates, "step", watched)
    monkeypatch.setattr(torch.optim.AdamW, "step", clipped)
    monkeypatch.setattr(
        trainer, "loss", lambda net, x0, *rest: (batches.append(x0), loss(net, x0, *rest))[1]
    )
    average = trainer.train(plan, tmp_path / "run", progress=False)
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.02 / 3, 0.01 / 3])
    assert norms == pytest.approx([0.05] * 6, rel=1e-3)
    source = sources.crops(plan)
    assert all(torch.equal(x0, source.batch(4, 0, k)) for k, x0 in enumerate(batches))
    torch.manual_seed(plan.seed)
    want = [p.detach().clone() for p in trainer.UNet(**plan.network.model_dump()).parameters()]
    for k, now in enumerate(seen):
        keep = min(0.3, (1 + k) / (10 + k))
        want = [keep * old + (1 - keep) * new for old, new in zip(want, now, strict=True)]
    for ours, theirs in zip(average.parameters(), want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "loss", lambda *a: torch.tensor(math.nan, requires_grad=True))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0; lower optimizer\.rate"):
        trainer.train(config(), tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"steps": True}, "steps"),
        ({"batch": 1.5}, "batch"),
        ({"ema": 1.0}, "ema"),
        ({"seed": -1}, "seed"),
        ({"autocast": "float8"}, "autocast"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"optimizer": {"name": "sgd", "rate": 1.0, "decay": 1}}, r"optimizer\.name"),
        ({"optimizer": {"rate": -1.0, "decay": 1}}, r"optimizer\.rate"),
        ({"noise": {"log_mean": 0.0}}, r"noise\.log_std"),
        ({"noise": {"log_mean": math.nan, "log_std": 1.0}}, r"noise\.log_mean"),
        ({"sigma_data": math.inf}, "sigma_data"),
        ({"card": settings()["card"] | {"sigma_max": 0.01}}, "card"),
        ({"data": {"kind": "lmdb"}}, "data"),
        ({"data": {"kind": "npz", "file": "a", "key": "b"}}, r"data\.npz\.crop"),
        ({"network": {"channels": 1, "widths": [0], "blocks": [1]}}, r"network\.widths\.0"),
    ],
)
def test_bad_configurations_are_refused_by_field(tmp_path, changes, field):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings(**changes)))
    with pytest.raises(ValueError, match=rf"\n  {field}: "):
        read_config(tmp_path / "toy.yaml")


def test_configurations_that_are_no_mapping(tmp_path):
    (tmp_path / "toy.yaml").write_text("- steps")
    with pytest.raises(ValueError, match="expected a mapping of settings, got list"):
        read_config(tmp_path / "toy.yaml")
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none.yaml")


def test_data_paths_are_taken_from_the_folder_of_the_file(config, tmp_path):
    assert config().data.file == tmp_path / "toy.npz"
    assert config(data={"kind": "images", "folders": ["a"], "crop": 8}).data.folders == (
        tmp_path / "a",
    )


def test_a_batch_depends_on_seed_and_step_alone():
    images = [
        np.random.default_rng(k).integers(0, 256, (12, 9, 3), dtype=np.uint8) for k in range(4)
    ]
    crops = Crops(images, 8)
    assert torch.equal(crops.batch(5, 0, 7), crops.batch(5, 0, 7))
    assert not torch.equal(crops.batch(5, 0, 7), crops.batch(5, 0, 8))
    batch = crops.batch(5, 0, 7)
    assert batch.shape == (5, 3, 8, 8)
    assert float(batch.min()) >= -1
    assert float(batch.max()) <= 1
    with pytest.raises(ValueError, match="4 images, 4 of them smaller than the crop 10"):
        Crops(images, 10)


def test_crops_come_from_every_place_with_black_and_white_at_the_ends():
    ends = Crops(
        [np.array([[0, 255, 0], [255, 0, 255], [0, 255, 255]], dtype=np.uint8)[..., None]],
        2,
        turns=False,
    ).batch(200, 0, 0)
    assert {float(v) for v in ends.unique()} == {-1.0, 1.0}
    places = Crops([np.arange(9, dtype=np.uint8).reshape(3, 3, 1)], 2, turns=False).batch(200, 0, 0)
    first = ((places[:, 0, 0, 0] + 1) * 127.5).round().int().bincount(minlength=9)
    assert set(first.nonzero().flatten().tolist()) == {0, 1, 3, 4}
    # Four places of equal chances: five standard errors.
    assert float((first[[0, 1, 3, 4]] / 200 - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 200) ** 0.5


def test_images_are_drawn_by_their_pixels_or_by_their_weights():
    images = [np.zeros((2, 2, 1), dtype=np.uint8), np.full((4, 6, 1), 255, dtype=np.uint8)]
    for weights, share in ((None, 24 / 28), ([3.0, 1.0], 0.25)):
        white = float((Crops(images, 2, weights).batch(1000, 0, 0)[:, 0, 0, 0] > 0).double().mean())
        assert abs(white - share) < 5 * (share * (1 - share) / 1000) ** 0.5


def test_turns_are_the_eight_symmetries_of_the_square():
    picture = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    turned = {tuple(row.flatten().tolist()) for row in Crops([picture], 2).batch(200, 0, 0)}
    assert len(turned) == 8
    assert len(Crops([picture], 2, turns=False).batch(50, 0, 0).unique(dim=0)) == 1


def test_reading_folders_and_arrays(tmp_path):
    for k in range(2):
        Image.fromarray(np.full((10, 14, 3), 100 * k, dtype=np.uint8)).save(tmp_path / f"{k}.png")
    images, weights = read_folders([tmp_path], 3, (1.0, 0.5), crop=6)
    assert [im.shape for im in images] == [(10, 14, 3), (6, 7, 3)] * 2
    assert len(weights) == 4
    assert read_folders([tmp_path], 1, (1.0,), crop=6)[0][0].shape == (10, 14, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image .* in the training folder"):
        read_folders([tmp_path / "empty"], 3, (1.0,), crop=6)
    stripes(tmp_path, n=3)
    digits = read_npz_pictures(tmp_path / "toy.npz", "train", 12)
    assert digits[0].shape == (12, 12, 1)
    assert int(digits[0][:2].max()) == 0
    with pytest.raises(ValueError, match="has no array 'test'"):
        read_npz_pictures(tmp_path / "toy.npz", "test", 12)
    with pytest.raises(ValueError, match="expected uint8"):
        read_npz_pictures(tmp_path / "toy.npz", "train", 6)


def test_export_writes_a_prior_a_card_and_a_sheet(config, tmp_path):
    plan = config()
    average = trainer.train(plan, tmp_path / "run", progress=False)
    prior = export(plan, tmp_path / "run", tmp_path / "prior", samples=5, steps=3)
    card = read_card(tmp_path / "prior")
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (card.storage, card.licence, card.description, card.training_data) == (
        "float16",
        "CC0",
        "stripes",
        "drawn",
    )
    assert (prior.sigma_max, prior.sigma_min, prior.train_size, prior.shape) == (
        10.0,
        0.01,
        (8, 8),
        (1, None, None),
    )
    assert card.training["steps"] == 6
    assert TrainingConfig.model_validate(card.training["config"]).data.file.name == "toy.npz"
    assert str(tmp_path) not in (tmp_path / "prior" / "card.json").read_text()
    # Stripes of -1 and 1 with equal chances have variance 1.
    assert prior.variance == pytest.approx(1.0, abs=0.05)
    assert variance(plan) == prior.variance
    level = torch.tensor(0.5)
    exact = edm.denoise(average, x, level, 0.5, None)
    torch.testing.assert_close(prior.denoise(x, level), exact.detach(), rtol=0, atol=5e-3)
    assert torch.equal(
        from_pretrained(tmp_path / "prior").denoise(x, level), prior.denoise(x, level)
    )
    with Image.open(tmp_path / "prior" / "samples.png") as picture:
        assert (picture.size, picture.mode) == ((28, 18), "L")
    few, many = (prior.sample(n, steps=3, shape=(1, 8, 8)) for n in (2, 5))
    torch.testing.assert_close(few, many[:2], rtol=0, atol=1e-4)


def test_export_of_photographs_is_for_any_size(config, tmp_path):
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    network = {"channels": 3, "widths": [8, 8], "blocks": [1, 1], "embedding": 8, "unshuffle": 2}
    plan = config(
        network=network, data={"kind": "images", "folders": ["pictures"], "crop": 8}, steps=1
    )
    trainer.train(plan, tmp_path / "run", progress=False)
    prior = export(plan, tmp_path / "run", tmp_path / "prior", samples=0, storage="float32")
    assert (prior.train_size, prior.multiple) == (None, 4)
    assert json.loads((tmp_path / "prior" / "card.json").read_text())["training"]["config"]["data"][
        "folders"
    ] == ["pictures"]
    assert not (tmp_path / "prior" / "samples.png").exists()
    assert prior.denoise(torch.zeros(1, 3, 11, 6), torch.tensor(1.0)).shape == (1, 3, 11, 6)


def test_exported_errors_are_mean_squares_with_noise_of_their_own_at_each_level(config):
    """A network of 0 has D = c_skip x: its error is (1 - c_skip)^2 E x0^2 + c_skip^2 sigma^2, and E
    x0^2 = 1 for stripes of -1 and 1."""
    plan, met = config(), []

    class Seen(Network):
        def denoise(self, x, sigma):
            met.append((x - x0) / float(sigma))
            return super().denoise(x, sigma)

    net = trainer.UNet(**plan.network.model_dump())
    prior = Seen(
        net,
        shape=(1, None, None),
        sigma_data=0.5,
        sigma_min=0.05,
        sigma_max=5.0,
        multiple=net.multiple,
    )
    x0 = sources.crops(plan).batch(64, plan.seed, 1)
    for sigma, error in errors(prior, plan, levels=5):
        skip = 0.25 / (0.25 + sigma**2)
        # Ten standard errors of a mean square of 4096 numbers.
        assert error == pytest.approx(
            (1 - skip) ** 2 + skip**2 * sigma**2, rel=10 * (2 / 4096) ** 0.5
        )
    for a, b in itertools.pairwise(met):
        assert abs(float((a * b).mean())) < 5 / 4096**0.5


def test_the_variance_is_that_of_a_pixel_and_not_of_the_mean_image(config, tmp_path):
    plan = config()
    ramp = np.linspace(20, 230, 64).reshape(1, 8, 8)
    pixels = ramp + 10 * np.random.default_rng(1).choice([-1, 1], (200, 8, 8))
    np.savez(tmp_path / "toy.npz", train=pixels.round().astype(np.uint8))
    assert variance(plan) == pytest.approx((10 / 127.5) ** 2, rel=0.05)


def test_export_says_what_is_missing(config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no training run in .*checkpoint\.pt is missing"):
        export(config(), tmp_path / "nowhere", tmp_path / "prior")
    trainer.train(config(steps=1), tmp_path / "run", progress=False)
    other = {"channels": 1, "widths": [12], "blocks": [1], "embedding": 8}
    with pytest.raises(ValueError, match=r"do not fit UNet: .* of another shape"):
        export(config(network=other), tmp_path / "run", tmp_path / "prior")


def test_a_sheet_puts_images_where_they_belong(tmp_path):
    images = torch.tensor([-1.0, 0.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    sheet(images, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (6, 6, 3)
    assert [
        int(pixels[0, 0, 0]),
        int(pixels[0, 4, 0]),
        int(pixels[4, 0, 0]),
        int(pixels[4, 4, 0]),
    ] == [0, 128, 255, 255]


def test_pictures_that_pillow_would_clip_or_cut_are_refused(tmp_path):
    deep = np.linspace(0, 65_535, 64).reshape(8, 8)
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(
        ValueError,
        match=r"deep.png holds 1 page.s. of mode I;16; training reads one picture of 8 bits",
    ):
        read_folders([tmp_path], 1, (1.0,), crop=4)
    (tmp_path / "deep.png").unlink()
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float.tif holds .* of mode F"):
        read_folders([tmp_path], 3, (1.0,), crop=4)
    (tmp_path / "float.tif").unlink()
    pages = [Image.fromarray(np.full((8, 8), k, dtype=np.uint8)) for k in (1, 2)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="stack.tif holds 2 page"):
        read_folders([tmp_path], 1, (1.0,), crop=4)
