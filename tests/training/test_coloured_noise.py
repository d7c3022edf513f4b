"""Training under the noise that masks, blurs and block means leave: which covariances are drawn,
the loss under them, and the prior that comes of it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from trainings import masked, same, written

from posteriori import covariances as cov
from posteriori.priors import Network, from_pretrained, save_pretrained
from posteriori.priors.architectures.image_transformer import ImageTransformer
from posteriori.priors.first_estimates import filled
from posteriori.priors.pretrained import read_card
from posteriori.training import sources, trainer
from posteriori.training.config import read_config
from posteriori.training.export import export
from posteriori.training.objectives.coloured_noise import covariances
from posteriori.training.start import started

GOAL = {
    "name": "coloured-noise",
    "masks": 0.25,
    "blurs": 0.25,
    "blocks": 0.25,
    "seen": [0.05, 0.2],
    "widths": [0.5, 0.8],
}

FOLDED = {"channels": 1, "widths": [8], "blocks": [1], "unshuffle": 2, "embedding": 8}


@pytest.fixture
def config(tmp_path):
    columns = np.random.default_rng(0).integers(0, 2, (64, 1, 8), dtype=np.uint8) * 255
    np.savez(tmp_path / "toy.npz", train=np.broadcast_to(columns, (64, 8, 8)))
    data = {"kind": "npz", "file": "toy.npz", "key": "train", "crop": 8}

    def make(**changes):
        return read_config(
            written(tmp_path, **{"data": data, "held_out": {"share": 0.0}} | changes)
        )

    return make


def test_shares_and_ranges_are_those_of_the_configuration(config):
    plan = config(objective=GOAL)
    drawn = covariances(plan, (1, 8, 8), 400, 3)
    kinds = Counter(type(member) for member in drawn)
    members = (cov.PixelNoise, cov.FourierNoise, cov.BlockNoise, cov.WhiteNoise)
    assert kinds == dict.fromkeys(members, 100)
    assert {member.factor for member in drawn if isinstance(member, cov.BlockNoise)} == {2, 4, 8}
    x = torch.zeros(1, 1, 8, 8)
    for member in drawn[:300]:
        told = member.told(x)
        assert told is not None
        # sigma is at most that of the card; at least a third of the noise, joined with it.
        assert float(told.levels.max()) <= 10.0 + 1e-9
        assert float(told.levels.min()) >= (1 / 0.05**2 + 9 / 0.05**2) ** -0.5 / 1.0001
    assert [type(m) for m in covariances(plan, (1, 8, 8), 8, 3)] == [
        kind for kind in members for _ in range(2)
    ]
    # Of means of blocks, the two looks have the summed precision of sigma and factor t.
    for member in drawn:
        if isinstance(member, cov.BlockNoise):
            t2 = 1 / ((1 / member.means - 1 / member.rest) * member.factor**2)
            assert 0.05**2 * 0.999 < t2 < 0.2**2 * 1.001


def test_the_loss_is_the_squared_error_in_units_of_the_output(config):
    """mean || c_out^-1 (D - x0) ||^2 by dense matrices, for a network that says 0 and one that
    repeats its input."""
    plan = config(objective=GOAL)
    x0 = sources.crops(plan).batch(8, seed=1, step=0)
    members = covariances(plan, (1, 8, 8), 8, 5)
    rng = np.random.default_rng([plan.seed, 5, 2])
    z = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32)).double()
    for g in (0.0, 0.6):

        def network(x, c, colour=None, g=g):
            return g * x

        total = 0.0
        for k, member in enumerate(members):
            v, Q = torch.linalg.eigh(member.dense(x0[:1].double()))
            truth, noise = x0[k].double().flatten() @ Q, v.sqrt() * (z[k].flatten() @ Q)
            out = 0.25 / (v + 0.25) + g * 0.5 * v.sqrt() / (v + 0.25)
            error = out * (truth + noise) - truth
            total += float((error.square() * (v + 0.25) / (0.25 * v)).mean()) / 8
        found = trainer.loss(network, x0, plan, 5)
        assert abs(float(found) / total - 1) < 1e-4


def test_the_loss_of_maps_is_in_units_of_the_filled_pixels(config):
    """Of a network that says 0: mean of (level'^2 + d^2) / (level' d)^2 (c_skip mu' - x0)^2, which
    is 1 where x0 has variance d^2 and mu' is x0 + level' z."""
    goal = GOAL | {"masks": 1.0, "blurs": 0.0, "blocks": 0.0}
    goal |= {"shown": True, "filled": True}
    plan = config(objective=goal, network=FOLDED)
    x0 = sources.crops(plan).batch(8, seed=1, step=0)
    members = covariances(plan, (1, 8, 8), 8, 5)
    rng = np.random.default_rng([plan.seed, 5, 2])
    z = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32))
    total = 0.0
    for k, member in enumerate(members):
        levels = member.power(torch.ones(1, 1, 8, 8, dtype=torch.float64), 0.5).float()
        mu, level = filled(x0[k : k + 1] + levels * z[k : k + 1], levels, 0.5)
        error = 0.25 / (level**2 + 0.25) * mu - x0[k]
        total += float((error.square() * (level**2 + 0.25) / (0.25 * level**2)).mean()) / 8
    found = trainer.loss(lambda x, c, shrunk: 0 * x, x0, plan, 5)
    assert abs(float(found) / total - 1) < 1e-4


def test_a_prior_for_colours_starts_from_another_prior_and_is_saved(config, tmp_path):
    white = config(steps=2)
    trainer.train(white, tmp_path / "white", progress=False)
    first = export(white, tmp_path / "white", tmp_path / "prior", storage="float32", samples=0)
    plan = config(objective=GOAL, start="prior", steps=2)
    source, _ = sources.training_images(plan)
    run = trainer.Trainer(plan, source, torch.device("cpu"))
    begun = {n: t for n, t in run.network.state_dict().items() if "colour" not in n}
    assert same(begun, first.net.state_dict())
    trainer.train(plan, tmp_path / "run", progress=False)
    prior = export(plan, tmp_path / "run", tmp_path / "coloured", samples=0)
    assert read_card(tmp_path / "coloured").arguments["coloured"] is True
    blocks, x = cov.BlockNoise(2, 0.1, 1.0), source.batch(2, 0, 0)
    assert prior.know().anisotropic.refuses(blocks) is None
    assert bool(prior.know().denoise_under(x, blocks).isfinite().all())
    assert first.know().anisotropic.refuses(blocks)
    # What was trained so can be trained on so.
    again = trainer.Trainer(
        config(objective=GOAL, start="coloured"), source, torch.device("cpu")
    ).network
    assert same(again.state_dict(), from_pretrained(tmp_path / "coloured").net.state_dict())


@pytest.mark.parametrize("filling", [False, True])
def test_a_network_that_is_shown_more_starts_from_one_that_is_not(config, tmp_path, filling):
    """As that one denoises, under maps too: what is shown has no weight at first."""
    plain = config(objective=GOAL, steps=2, network=FOLDED)
    trainer.train(plain, tmp_path / "plain", progress=False)
    first = export(plain, tmp_path / "plain", tmp_path / "prior", storage="float32", samples=0)
    told = GOAL | {"shown": True, "filled": filling}
    plan = config(objective=told, start="prior", steps=2, network=FOLDED)
    source, _ = sources.training_images(plan)
    network = trainer.Trainer(plan, source, torch.device("cpu")).network
    known, begun = first.net.enter.weight, network.state_dict()["enter.weight"]
    assert torch.equal(begun[:, :4], known)
    assert not bool(begun[:, 4:].any())
    leave = network.state_dict()["leave.weight"]
    assert torch.equal(leave[:4], first.net.leave.weight)
    assert len(leave) == (12 if filling else 4)
    assert not bool(leave[4:].any())
    trainer.train(plan, tmp_path / "run", progress=False)
    export(plan, tmp_path / "run", tmp_path / "shown", storage="float32", samples=0)
    assert read_card(tmp_path / "shown").arguments["estimates"] == 0.5
    assert read_card(tmp_path / "shown").arguments.get("filled", False) is filling
    again = config(objective=told, start="shown", network=FOLDED)
    begun = trainer.Trainer(again, source, torch.device("cpu")).network
    assert same(begun.state_dict(), from_pretrained(tmp_path / "shown").net.state_dict())


SHOWN = GOAL | {"shown": True}
FILLED = SHOWN | {"filled": True}


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        ("score-matching", {"network": FOLDED | {"channels": 3}}, "of channels 1, this run .* 3"),
        ("score-matching", {"network": FOLDED | {"blocks": [2]}}, r"of blocks \(1,\), .* \(2,\)"),
        (GOAL, {"objective": "score-matching"}, "with coloured: True, .* objective: coloured-n"),
        (SHOWN, {"objective": GOAL}, "with estimates: 0.5, .* shown: true"),
        (FILLED, {"objective": SHOWN}, "with filled: True, .* shown: true, filled: true"),
        ("ambient", {"objective": FILLED}, "with masked: True, .* objective: ambient"),
    ],
    ids=["channels", "blocks", "colours", "estimates", "filled", "masked"],
)
def test_a_start_of_another_network_is_refused(config, tmp_path, before, changes, words):
    """Though only the first and the last layer differ, which what is shown makes larger too."""
    complete = isinstance(before, dict) or before == "score-matching"
    data = {} if complete else {"data": masked(tmp_path)}
    first = config(objective=before, network=FOLDED, **data)
    net = trainer.network_of(first)
    prior = Network(net, shape=(1, None, None), sigma_data=0.5, conditions=net.conditions)
    save_pretrained(prior, tmp_path / "prior")
    plan = config(**{"objective": FILLED, "network": FOLDED, "start": "prior"} | changes)
    with pytest.raises(ValueError, match=f"start: the prior in .*prior is a network {words}"):
        started(trainer.network_of(plan), plan)


def test_a_start_that_is_no_unet_is_refused(config, tmp_path):
    net = ImageTransformer(1, patch=2, width=16, hidden=16, layers=1, heads=2)
    save_pretrained(Network(net, shape=(1, 8, 8), sigma_data=0.5), tmp_path / "prior")
    plan = config(start="prior")
    with pytest.raises(
        ValueError, match="no UNet, as this run trains, but ImageTransformer: begin"
    ):
        started(trainer.network_of(plan), plan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"masks": 0.8}, "of sum at most 1, got 0.8, 0.25 and 0.25"),
        ({"seen": [0.2, 0.1]}, "seen is .least, greatest."),
        ({"widths": [0.0, 0.1]}, "greater than 0"),
        ({"filled": True}, "filled: true goes with shown: true, got shown: false"),
        ({"seen": [1.0, 30.0]}, "objective.seen must end below 30, got 30"),
        ({"seen": [1.0, math.inf]}, "finite number, got inf"),
    ],
)
def test_shares_and_ranges_that_are_none_are_refused(config, changes, words):
    with pytest.raises(ValueError, match=words):
        config(objective=GOAL | changes)


def test_shares_add_up_as_they_are_written(config):
    """0.56 + 0.34 + 0.1 is more than 1 to a processor that adds one by one."""
    goal = config(objective=GOAL | {"masks": 0.56, "blurs": 0.34, "blocks": 0.1}).objective
    assert goal.masks + goal.blurs + goal.blocks > 1


def test_crops_have_whole_blocks(config):
    data = {"kind": "npz", "file": "toy.npz", "key": "train", "crop": 12}
    with pytest.raises(ValueError, match=r"data.crop must be a multiple of 8, got 12; or set"):
        config(objective=GOAL, data=data)
    assert config(objective=GOAL | {"blocks": 0.0}, data=data).data.crop == 12
