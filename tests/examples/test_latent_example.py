"""The example for pipelines of the Stable Diffusion family, on a tiny one with random weights."""

from __future__ import annotations

import runpy

import pytest
import torch
from PIL import Image
from reference import REPOSITORY

import posteriori as po

pytest.importorskip("transformers")
pytest.importorskip("diffusers")

import pipelines


@pytest.mark.parametrize(("kind", "method"), [("sd15", "FlowDPS(published)"), ("flux", "FlowChef")])
def test_a_small_picture_is_made_larger(kind, method, tmp_path, capsys):
    pipelines.make(kind).save_pretrained(tmp_path / kind)
    po.measurements.write_image(tmp_path / "small.png", torch.rand(3, 9, 10), range=(0, 1))
    script = runpy.run_path(str(REPOSITORY / "examples" / "latent" / "stable_diffusion.py"))
    words = [str(tmp_path / kind), str(tmp_path / "small.png"), "a fox", "--factor", "2"]
    words += ["--method", method, "--steps", "2", "--out", str(tmp_path / "large")]
    script["main"]([*words, "--plan"])
    assert "2 steps" in capsys.readouterr().out
    script["main"]([*words, "--n", "2"])
    assert "2 samples in" in capsys.readouterr().out
    # sides that are no multiple of what the network takes are cut
    image = Image.open(tmp_path / "large" / "sample-001.png")
    assert image.size == (20 // 4 * 4, 18 // 4 * 4)
