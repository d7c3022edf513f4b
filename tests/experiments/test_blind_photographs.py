"""Photographs behind an unknown blur: which crops and kernels, what a row says, and that rows are
kept."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from reference import draw

from posteriori import cli
from posteriori.experiments import blind_photographs as blind
from posteriori.measurements.photos import COFFEE


def pictures(folder, *sides):
    for k, (height, width) in enumerate(sides):
        numbers = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3) * 7 + k
        Image.fromarray((numbers % 251).astype(np.uint8)).save(folder / f"{k}.png")


def test_middles_come_first_then_the_crops_beside_each_other(tmp_path):
    pictures(tmp_path, (40, 72), (33, 40), (16, 80))
    plan = blind.plan_blind(tmp_path, ["FastDiffusionEM"], 4, 32, 2)
    assert [(cell.picture[-5:], cell.place, cell.kernel) for cell in plan] == [
        ("0.png", 0, 0),
        ("1.png", 0, 1),
        ("0.png", 1, 2),
        ("0.png", 2, 3),
    ]
    whole = torch.from_numpy(np.array(Image.open(tmp_path / "0.png"))).permute(2, 0, 1) / 255
    assert torch.equal(blind.crop(tmp_path / "0.png", 0, 32), whole[:, 4:36, 20:52])
    assert torch.equal(blind.crop(tmp_path / "0.png", 2, 32), whole[:, :32, 32:64])
    for words, crops, side, said in (
        (["FastDiffusionEM"], 6, 32, "5 crops of 32 x 32"),
        (["DPSS"], 1, 32, "unknown method 'DPSS'"),
        (["BlindDPS"], 1, 36, "multiple of 8"),
        (["BlindDPS"], 0, 32, "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            blind.plan_blind(tmp_path, words, crops, side, 2)


def test_kernels_are_traces_in_the_middle_and_the_measurement_is_their_convolution():
    for k in range(3):
        kernel = blind.true_kernel(k)
        assert kernel.shape == (17, 17)
        assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-6)
        room = (17 - blind.SIDES[k]) // 2
        assert float(kernel[:room].sum()) == 0.0
    x = blind.crop(COFFEE, 0, 32)
    post = blind.blurred(x, blind.true_kernel(0), 5)
    gap = post.given.y - post.given.A.at(blind.true_kernel(0))(x[None])[0]
    assert float(gap.std()) == pytest.approx(0.02, rel=4.5 * (0.5 / gap.numel()) ** 0.5)


def test_a_picture_is_compared_at_its_best_shift():
    x = draw(3, 32, 32, dtype=torch.float32).abs()
    moved = (x + 0.1).roll((3, -8), (1, 2))
    assert blind.aligned_psnr(moved, x) == pytest.approx(20.0, abs=1e-3)
    assert blind.aligned_psnr(x.roll(9, 1), x) < 15


def test_rows_are_written_kept_and_summed_up(tmp_path, monkeypatch, capsys):
    file = tmp_path / "rows.json"
    words = ["bench", "blind", "--side", "32", "--steps", "2", "--crops", "1", "--json", str(file)]

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["posteriori", *words, *more, "--quiet"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return capsys.readouterr().out

    out = call()
    (row,) = json.loads(file.read_text())
    assert row["picture"] == "coffee.png"
    assert row["denoiser"] == 2
    assert 0 < row["correlation"] <= 1
    assert "FastDiffusionEM: correlation of at least 0.8 in" in out
    row["psnr"] = 55.5
    file.write_text(json.dumps([row]))
    again = call("--methods", "FastDiffusionEM,GibbsDDRM")
    assert "55.50" in again
    assert "refused: GibbsDDRM: this needs a belief" in again
    assert "55.50" in file.with_suffix(".md").read_text()
