"""Training under noise that differs from pixel to pixel: which maps are drawn, the loss under them,
where a run starts from, and the prior that comes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from trainings import same

from posteriori.covariances import PixelNoise
from posteriori.priors import from_pretrained
from posteriori.priors.pretrained import read_card
from posteriori.training import sources, trainer
from posteriori.training.config import NoiseMapsObjective, read_config
from posteriori.training.export import export
from posteriori.training.objectives.noise import drawn, unit_weight
from posteriori.training.objectives.noise_maps import seen_again

MAPS = {"name": "noise-maps", "share": 0.75, "log_mean": -2.0, "log_std": 0.5}


@pytest.fixture
def config(tmp_path):
    from trainings import written

    columns = np.random.default_rng(0).integers(0, 2, (64, 1, 8), dtype=np.uint8) * 255
    np.savez(tmp_path / "toy.npz", train=np.broadcast_to(columns, (64, 8, 8)))
    data = {"kind": "npz", "file": "toy.npz", "key": "train", "crop": 8}

    def make(**changes):
        file = written(tmp_path, **{"data": data, "held_out": {"share": 0.0}} | changes)
        return read_config(file)

    yield make
    torch.set_num_threads(torch.get_num_threads())


def test_maps_have_two_levels_that_are_joined_as_two_looks_are():
    """sigma where S is not, (sigma^-2 + t^-2)^-1/2 on it; S is empty for a quarter of the images,
    and single pixels and rectangles are about as frequent."""
    maps = NoiseMapsObjective(**MAPS)
    level = torch.full((4000, 1, 1, 1), 0.8)
    s = seen_again(level, maps, (6, 5), np.random.default_rng(3))
    assert s.shape == (4000, 1, 6, 5)
    low = s.flatten(1).amin(1)
    assert bool(((s == level) | (s == low.view(-1, 1, 1, 1))).all())
    assert bool((s <= level).all())
    t = (low.double() ** -2 - 0.8**-2) ** -0.5
    seen = low < 0.79  # neither an empty S nor a t beyond all measure
    logs = t[seen].log()
    # Five standard errors; the mean of 4000 values of standard deviation 0.5 has one of 0.008.
    assert abs(float(logs.mean()) + 2.0) < 0.05
    assert abs(float(logs.std()) - 0.5) < 0.04
    # An S that came out empty, or as all pixels, by chance makes the share of uneven maps smaller.
    uneven = float((s.flatten(1).amax(1) > low).double().mean())
    assert 0.5 < uneven < 0.75
    boxes = (s < 0.79)[:, 0]
    # Every row of a rectangle, and of its complement, is one of two rows.
    kinds = torch.stack([(boxes == boxes[:, k : k + 1]).all(2).sum(1) for k in range(6)], 1)
    assert 0.2 < float((kinds.amax(1) >= 3)[seen].double().mean()) < 0.8


def test_two_looks_are_one_of_their_summed_precision():
    """(0.8^-2 + 0.6^-2)^-1/2 = 0.48."""
    maps = NoiseMapsObjective(name="noise-maps", share=1.0, log_mean=math.log(0.6), log_std=1e-9)
    s = seen_again(torch.full((20, 1, 1, 1), 0.8), maps, (6, 5), np.random.default_rng(0))
    far = torch.minimum((s - 0.8).abs(), (s - 0.48).abs())
    assert float(far.max()) < 1e-6
    assert 0.1 < float((s < 0.5).double().mean()) < 0.9


def test_the_loss_is_that_of_the_levels_of_each_pixel(config):
    plan = config(objective=MAPS)
    x0 = sources.crops(plan).batch(4, seed=1, step=0)
    level, z, rng = drawn(x0, plan, 5)
    s = seen_again(level, plan.objective, (8, 8), rng)

    def zero(x, c):
        torch.testing.assert_close(c, s[:, 0].log() / 4)
        torch.testing.assert_close(x, (x0 + s * z) / (s**2 + 0.25).sqrt())
        return torch.zeros_like(x)

    skip = 0.25 / (s**2 + 0.25) * (x0 + s * z)
    expected = (unit_weight(s, 0.5) * (skip - x0).square()).mean()
    torch.testing.assert_close(trainer.loss(zero, x0, plan, 5), expected)


def test_a_prior_for_maps_starts_from_another_prior_and_is_saved(config, tmp_path):
    white = config(steps=4)
    trainer.train(white, tmp_path / "white", progress=False)
    export(white, tmp_path / "white", tmp_path / "prior", storage="float32", samples=0)
    begun = from_pretrained(tmp_path / "prior").net.state_dict()
    plan = config(objective=MAPS, start="prior", steps=2)
    assert plan.start == tmp_path / "prior"
    source, _ = sources.training_images(plan)
    run = trainer.Trainer(plan, source, torch.device("cpu"))
    assert same(run.network.state_dict(), begun)
    assert same(run.average.state_dict(), begun)
    assert run.record["start"] == read_card(tmp_path / "prior").sha256
    trainer.train(plan, tmp_path / "maps", progress=False)
    prior = export(plan, tmp_path / "maps", tmp_path / "mapped", samples=0)
    assert not same(prior.net.state_dict(), begun)
    assert read_card(tmp_path / "mapped").arguments["noise_maps"] is True
    assert str(tmp_path) not in (tmp_path / "mapped" / "card.json").read_text()
    v = torch.full((1, 8, 8), 0.5)
    v[..., :4] = 0.01
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert bool(prior.know().denoise_under(x, PixelNoise(v)).isfinite().all())
    # The other prior takes no maps; a run without a start is another run.
    assert from_pretrained(tmp_path / "prior").know().anisotropic.refuses(PixelNoise(v))
    with pytest.raises(ValueError, match="other settings"):
        trainer.train(config(objective=MAPS, steps=4), tmp_path / "maps", progress=False)


def test_a_start_that_does_not_fit_is_refused(config, tmp_path):
    plan = config(steps=1)
    trainer.train(plan, tmp_path / "white", progress=False)
    export(plan, tmp_path / "white", tmp_path / "prior", samples=0)
    network = {"channels": 1, "widths": [12], "blocks": [1], "embedding": 8}
    for changes, words in (
        ({"sigma_data": 0.4}, "sigma_data 0.5, this run trains one of sigma_data 0.4: state"),
        ({"network": network}, r"of widths \(8,\), this run trains one of \(12,\): state network"),
    ):
        with pytest.raises(ValueError, match=words):
            trainer.train(config(start="prior", **changes), tmp_path / "other", progress=False)
    with pytest.raises(ValueError, match=r"share: input should be greater than 0"):
        config(objective=MAPS | {"share": 0.0})
