"""The chest CT prior that ships: it denoises a drawn chest as its card says of measured ones."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest
import torch
from reference import REPOSITORY, draw

import posteriori as po
from posteriori.evaluation import psnr
from posteriori.priors.pretrained import read_card

CARD = Path(po.__file__).parent / "priors" / "weights" / "chest-ct"


@pytest.fixture(scope="module")
def chest():
    """One drawn slice in the window of the prior, (1, 1, 128, 128)."""
    hu = run_path(str(REPOSITORY / "benchmarks" / "volume_ct.py"))["phantom"](1)
    return 2 * (hu + 1000) / 2500 - 1


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_it_denoises_as_its_card_says(chest, sigma):
    told = read_card(CARD).training["held_out"]["denoising_psnr"][str(sigma)]
    prior = po.priors.chest_ct()
    noisy = chest + sigma * draw(*chest.shape, dtype=torch.float32, seed=1)
    found = float(psnr(prior.denoise(noisy, torch.tensor(sigma)), chest, 2.0)[0])
    assert found > told - 1
    error = prior.know().error(sigma)
    assert 10 * torch.log10(torch.tensor(4 / error)) == pytest.approx(told, abs=1)
