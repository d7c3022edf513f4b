"""LPIPS against its authors' own example, where the package, its weights and the example's pictures
are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from posteriori.evaluation import MetricUnavailable, lpips

FOLDER = "POSTERIORI_LPIPS_PICTURES"


def picture(name):
    file = Path(os.environ[FOLDER]) / name
    return (
        torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None].double()
        / 255
    )


@pytest.mark.parametrize(("name", "distance"), [("ex_p0.png", 0.722), ("ex_p1.png", 0.138)])
def test_the_authors_example(name, distance):
    if FOLDER not in os.environ:
        pytest.skip(
            f"set {FOLDER} to the folder imgs of the LPIPS repository, which holds ex_ref.png, "
            "ex_p0.png and ex_p1.png"
        )
    try:
        found = float(lpips(picture(name), picture("ex_ref.png"), (0.0, 1.0)))
    except MetricUnavailable as error:
        pytest.skip(str(error))
    assert found == pytest.approx(distance, abs=0.002)
