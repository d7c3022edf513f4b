"""The true image for ``posteriori report --reference``, in the range of the run that it is compared
with."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from posteriori.problem_file.reading import Reading, as_image
from posteriori.run import read_json


def read_truth(path: Path, folder: Path) -> Tensor:
    """A clean image (C, H, W) in the range that the run of ``folder``, or the first run in it,
    states; [0, 1] where it states none.

    Raises ``FileNotFoundError`` when there is no such file or run, ``ValueError`` where the picture
    has no data.
    """
    places = (
        [folder / "run.json"]
        if (folder / "run.json").exists()
        else sorted(folder.glob("*/run.json"))
    )
    if not places:
        raise FileNotFoundError(
            f"no run in {folder}: neither run.json nor sub-folders that hold one"
        )
    stated = read_json(places[0])["config"].get("range") or (0.0, 1.0)
    return as_image(path, (float(stated[0]), float(stated[1])), Reading())[0]
