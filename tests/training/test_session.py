"""A training run that stops and goes on: Ctrl-C, another configuration, other images; and its
held-out loss."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest
import torch
from trainings import same, written

from posteriori.cli import main
from posteriori.training import session, sources, trainer
from posteriori.training.config import read_config


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        np.save(tmp_path / "data" / f"{k}.npy", rng.random((10, 12), dtype=np.float32))
    return tmp_path


def state(place):
    return torch.load(place / "checkpoint.pt", weights_only=True)


def test_ctrl_c_ends_a_run_after_its_step_and_it_goes_on_to_the_same_bits(folder, monkeypatch):
    plan = read_config(written(folder, steps=6, checkpoint_every=5))
    trainer.train(plan, folder / "straight", progress=False)
    step, before = trainer.Trainer.step, signal.getsignal(signal.SIGINT)

    def pressed(self, x0):
        if self.reached == 2:
            os.kill(os.getpid(), signal.SIGINT)
        step(self, x0)

    monkeypatch.setattr(trainer.Trainer, "step", pressed)
    with pytest.raises(
        KeyboardInterrupt,
        match=r"stopped after step 3 of 6, kept in .*checkpoint\.pt; train goes on",
    ):
        trainer.train(plan, folder / "stopped", progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert state(folder / "stopped")["step"] == 3
    monkeypatch.undo()
    trainer.train(plan, folder / "stopped", progress=False)
    assert same(state(folder / "straight"), state(folder / "stopped"))


def test_the_command_says_how_to_go_on(folder, monkeypatch, capsys):
    step = trainer.Trainer.step

    def pressed(self, x0):
        os.kill(os.getpid(), signal.SIGINT)
        step(self, x0)

    monkeypatch.setattr(trainer.Trainer, "step", pressed)
    words = ["train", str(written(folder)), "--out", str(folder / "run"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["posteriori", *words])
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert (
        f"interrupted; 1 steps are kept in {folder / 'run' / 'checkpoint.pt'}; "
        "go on by: posteriori train"
    ) in said


def test_a_second_ctrl_c_interrupts_at_once():
    # A shell starts background jobs with the signal ignored, and "as always" would be not at all.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ask_twice()
    finally:
        signal.signal(signal.SIGINT, before)


def ask_twice():
    with session.at_a_keystroke() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 5}, r"batch: 4 then, 5 now"),
        ({"seed": 1}, r"seed: 0 then, 1 now"),
        (
            {"optimizer": {"rate": 0.1, "warmup": 2, "decay": 1}},
            r"optimizer\.rate: 0\.003 then, 0\.1 now",
        ),
        (
            {"network": {"channels": 1, "widths": [16], "blocks": [1], "embedding": 8}},
            r"network\.widths: \[8\] then, \[16\] now",
        ),
        (
            {"data": {"kind": "arrays", "paths": ["data"], "window": [0, 2], "crop": 8}},
            r"data\.window: .*data\.images: other numbers",
        ),
        ({"steps": 2}, "steps: 4 are made, 2 asked for"),
    ],
)
def test_another_configuration_is_refused_by_name(folder, changes, message):
    trainer.train(read_config(written(folder)), folder / "run", progress=False)
    with pytest.raises(ValueError, match=f"was started with other settings .*{message}"):
        trainer.train(read_config(written(folder, **changes)), folder / "run", progress=False)
    assert state(folder / "run")["step"] == 4


def test_other_images_of_the_same_names_are_refused_and_the_same_elsewhere_are_not(folder):
    trainer.train(read_config(written(folder)), folder / "run", progress=False)
    (folder / "data").rename(folder / "moved")
    data = {"kind": "arrays", "paths": ["moved"], "window": [0, 1], "crop": 8}
    trainer.train(
        read_config(written(folder, data=data, steps=5, name="other", checkpoint_every=3)),
        folder / "run",
        progress=False,
    )
    assert state(folder / "run")["step"] == 5
    for k in range(4):
        np.save(folder / "moved" / f"{k}.npy", np.zeros((10, 12), dtype=np.float32))
    with pytest.raises(ValueError, match=r"data\.images: other numbers"):
        trainer.train(
            read_config(written(folder, data=data, steps=5)), folder / "run", progress=False
        )


def test_a_run_is_prolonged_until_its_rate_falls(folder):
    late = {"name": "adamw", "rate": 3e-3, "warmup": 1, "decay": 3}
    trainer.train(read_config(written(folder, optimizer=late)), folder / "run", progress=False)
    with pytest.raises(ValueError, match="steps: 4 then, 9 now, and the rate has begun to fall"):
        trainer.train(
            read_config(written(folder, optimizer=late, steps=9)), folder / "run", progress=False
        )


def test_a_checkpoint_that_cannot_be_read_is_named(folder):
    (folder / "run").mkdir()
    (folder / "run" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt cannot be read: .*remove it to begin anew"
    ):
        trainer.train(read_config(written(folder)), folder / "run", progress=False)
    torch.save({"step": 3}, folder / "run" / "checkpoint.pt")
    with pytest.raises(ValueError, match="does not say with which configuration it was trained"):
        trainer.train(read_config(written(folder)), folder / "run", progress=False)


def test_the_held_out_loss_is_that_of_the_average_on_images_it_has_not_seen(folder):
    plan, said = read_config(written(folder)), []
    average = trainer.train(plan, folder / "run", progress=False, say=said.append)
    history = state(folder / "run")["history"]
    assert [row["step"] for row in history] == [2, 4]
    _, held = sources.training_images(plan)
    assert len(held.images) == 1
    x0 = held.batch(6, 0, trainer._HELD)
    losses = [
        len(part) * float(trainer.loss(average, part, plan, trainer._HELD + 4 * k + draw).detach())
        for k, part in enumerate(x0.split(4))
        for draw in range(4)
    ]
    assert history[-1]["held_out"] == pytest.approx(sum(losses) / 24)
    assert said[-1] == (
        f"step 4 of 4: loss {history[-1]['loss']:.4f}, "
        f"on held-out images {history[-1]['held_out']:.4f}"
    )
    trainer.train(
        read_config(written(folder, held_out={"share": 0})), folder / "all", progress=False
    )
    assert state(folder / "all")["history"][-1]["held_out"] is None
