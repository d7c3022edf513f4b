"""Training on images with descriptions, and of an autoencoder: what a step is given, what is
refused, and the way to a prior that is told what it shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from trainings import same

from posteriori.cli import main
from posteriori.priors import Autoencoder, Latent, Network, SentenceEncoder, UNet, from_pretrained
from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.training import export, sources, trainer
from posteriori.training.config import AutoencoderConfig, TrainingConfig, read_config
from posteriori.training.objectives import autoencoder, conditional

COMMON = {
    "optimizer": {"name": "adamw", "rate": 3e-3, "warmup": 2, "decay": 1},
    "batch": 8,
    "ema": 0.9,
    "autocast": "none",
    "threads": 1,
    "checkpoint_every": 3,
    "held_out": {"share": 0},
}
CARD = {"description": "flat images", "training_data": "drawn", "licence": "CC0"}
TOLD = COMMON | {
    "name": "told",
    "objective": {"name": "conditional", "width": 3, "dropout": 0.4},
    "network": {"channels": 2, "widths": [8], "blocks": [1], "embedding": 8},
    "data": {"kind": "described", "file": "told.npz", "crop": 4},
    "noise": {"log_mean": 0.0, "log_std": 1.0},
    "card": CARD | {"sigma_max": 10.0, "sigma_min": 0.1},
    "sigma_data": 1.0,
    "steps": 6,
}
CODER = COMMON | {
    "name": "coder",
    "objective": "autoencoder",
    "network": {
        "channels": 1,
        "latent_channels": 2,
        "widths": [8, 8],
        "blocks": [1, 1],
        "unshuffle": 2,
    },
    "data": {"kind": "npz", "file": "pictures.npz", "key": "train", "crop": 8},
    "card": CARD,
    "steps": 60,
}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def arrays(**changes):
    """16 images, image k at the level k, which descriptions k % 4 and 4 fit."""
    levels = np.arange(16, dtype=np.float32)
    return {
        "images": np.broadcast_to(levels[:, None, None, None], (16, 2, 4, 4)).copy(),
        "described": np.stack([np.arange(16) % 4, np.full(16, 4)], 1),
        "embeddings": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),
    } | changes


@pytest.fixture
def config(tmp_path):
    np.savez(tmp_path / "told.npz", **arrays())
    rng = np.random.default_rng(1)
    pictures = np.kron(rng.integers(0, 2, (32, 2, 2)), np.ones((1, 4, 4))) * 255
    np.savez(tmp_path / "pictures.npz", train=pictures.astype(np.uint8))

    def make(kind, **changes):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(kind | changes))
        return read_config(tmp_path / "run.yaml")

    return make


def test_a_batch_pairs_an_image_with_one_of_its_descriptions(config):
    settings = config(TOLD)
    source = sources.crops(settings)
    batch = source.batch(400, 0, 3)
    assert torch.equal(batch, source.batch(400, 0, 3))
    assert not torch.equal(batch, source.batch(400, 0, 4))
    images, told = conditional.image_and_embedding(batch, settings)
    assert tuple(images.shape) == (400, 2, 4, 4)
    table = torch.from_numpy(arrays()["embeddings"])
    chosen = torch.cdist(told, table).argmin(1)
    assert torch.equal(table[chosen], told)
    k = images[:, 0, 0, 0].long()
    assert torch.equal(images, k.view(-1, 1, 1, 1).float().expand_as(images))
    assert bool(((chosen == k % 4) | (chosen == 4)).all())
    # A fair coin of 400 draws: 200 with a standard deviation of 10.
    assert abs(int((chosen == 4).sum()) - 200) < 50


def test_the_network_is_told_of_all_rows_but_those_left_out(config):
    settings, seen = config(TOLD), {}

    class Stub(nn.Module):
        def forward(self, x, label, embedding):
            seen["told"] = embedding
            return torch.zeros_like(x)

    batch = sources.crops(settings).batch(1000, 0, 0)
    _, told = conditional.image_and_embedding(batch, settings)
    conditional.loss(Stub(), batch, settings, 0)
    out = (seen["told"] == 0).all(1)
    assert torch.equal(seen["told"][~out], told[~out])
    # 400 of 1000 are expected, with a standard deviation of 15.5.
    assert abs(int(out.sum()) - 400) < 78


def test_a_trained_prior_is_told_what_it_shows(config, tmp_path):
    settings = config(TOLD)
    assert isinstance(settings, TrainingConfig)
    trainer.train(settings, tmp_path / "run", progress=False)
    prior = export.export(settings, tmp_path / "run", tmp_path / "prior", samples=0)
    assert prior.range is None
    assert prior.know().leaves()["embedding"] == (3,)
    images = torch.from_numpy(arrays()["images"])
    assert prior.variance == pytest.approx(float(images.var(0).mean()), rel=0.15)
    for bias in (prior.net.known[0].weight, prior.net.known[2].weight):
        assert bias.shape[1] in (3, 8)


def test_an_autoencoder_learns_its_images_and_goes_on_to_the_same_bits(config, tmp_path):
    settings = config(CODER)
    assert isinstance(settings, AutoencoderConfig)
    trainer.train(settings, tmp_path / "straight", progress=False)
    trainer.train(config(CODER, steps=30), tmp_path / "parts", progress=False)
    trainer.train(settings, tmp_path / "parts", progress=False)
    first, second = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("straight", "parts")
    )
    assert same(first, second)
    net = export.averaged_autoencoder(settings, tmp_path / "straight")
    x = sources.crops(settings).batch(32, 0, 0)
    with torch.no_grad():
        before = autoencoder.loss(trainer.trained_module(settings), x, settings, 0)
        after = autoencoder.loss(net, x, settings, 0)
    assert after < 0.5 * before


def test_the_loss_of_an_autoencoder_is_its_error_under_noise_and_the_size_of_latents(config):
    settings = config(CODER, objective={"name": "autoencoder", "noise": 0.3, "penalty": 0.2})
    x = sources.crops(settings).batch(4, 0, 0)

    class Half(nn.Module):
        factor = 4

        def forward(self, x, noise):
            z = 0.5 * x[:, :, ::4, ::4].repeat(1, 2, 1, 1)
            return z, torch.zeros_like(x) + noise.mean()

    found = float(autoencoder.loss(Half(), x, settings, 7))
    n = np.random.default_rng([0, 7, 1]).standard_normal((4, 2, 2, 2), dtype=np.float32)
    error = (x - 0.3 * float(n.mean())).square().mean()
    size = (0.5 * x[:, :, ::4, ::4]).square().mean()
    assert found == pytest.approx(float(error + 0.2 * size), rel=1e-5)


def test_latents_keep_their_words_in_a_folder(tmp_path):
    torch.manual_seed(0)
    net = UNet(2, (4,), (1,), 1, embedding=8, condition=384)
    encoder = SentenceEncoder(("a nine",), torch.randn(1, 384))
    prior = Network(
        net,
        shape=(2, None, None),
        sigma_data=1.0,
        range=None,
        conditions=net.conditions,
        text=encoder,
    )
    coder = Autoencoder(ConvAutoencoder(1, 2, (4, 4)), factor=2, channels=1, latent_channels=2)
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    latent = Latent(prior, coder, check=False)
    latent_again = latent  # the same maps, by way of a folder
    from posteriori.priors import save_pretrained

    save_pretrained(latent, tmp_path / "saved")
    latent_again = from_pretrained(tmp_path / "saved")
    assert isinstance(latent_again, Latent)
    x, sigma = torch.randn(3, 2, 4, 4), torch.tensor(0.7)
    how = {"guidance": 2.0}
    one, two = (p.conditioned("a nine", **how) for p in (latent, latent_again))
    assert isinstance(one, Latent)
    # Embeddings are kept in half precision.
    torch.testing.assert_close(one.denoise(x, sigma), two.denoise(x, sigma), rtol=1e-3, atol=1e-3)
    inner = prior.conditioned("a nine", **how)
    torch.testing.assert_close(one.denoise(x, sigma), inner.denoise(x, sigma))
    assert one.know().passes == 2
    assert not torch.allclose(one.denoise(x, sigma), latent.denoise(x, sigma))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (TOLD, {"objective": "score-matching"}, "conditional and data of kind: described belong"),
        (TOLD, {"data": CODER["data"]}, "got objective conditional and data of kind: npz"),
        (CODER, {"data": TOLD["data"]}, "from complete images alone, got data of kind: described"),
        (CODER, {"noise": TOLD["noise"]}, "noise: extra inputs are not permitted"),
    ],
)
def test_runs_that_cannot_be_are_refused(config, kind, changes, said):
    with pytest.raises(ValueError, match=said):
        config(kind, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((16, 2, 4, 5), np.float32)}, r"\[images\]: expected floating point"),
        ({"images": np.full((16, 2, 4, 4), np.nan)}, r"\[images\] has values that are not finite"),
        ({"embeddings": np.zeros((5, 4), np.float32)}, r"\[embeddings\]: expected .* \(K, 3\)"),
        ({"described": np.full((16, 2), 5)}, r"\[described\]: expected whole numbers \(16, J\)"),
        ({"described": np.zeros((15, 2), int)}, r"\[described\]: expected whole numbers"),
    ],
)
def test_files_that_do_not_fit_are_refused(config, tmp_path, changes, said):
    settings = config(TOLD)
    np.savez(tmp_path / "told.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=said):
        sources.crops(settings)


def test_an_autoencoder_is_not_exported_as_a_prior(config, tmp_path, capsys):
    config(CODER)
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "o"), "--export", "p"])
    assert stopped.value.code
    assert "an autoencoder is no prior" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
