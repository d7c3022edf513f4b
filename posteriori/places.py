"""What a file or folder is, as far as its names tell, and what can be done with it: for errors
where another kind was expected."""

from __future__ import annotations

from pathlib import Path

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ARRAYS = (".npy", ".npz", ".cfl", ".safetensors", ".pt", ".pth", ".ckpt", ".pkl")


def place_description(path: Path) -> str:
    """A sentence to add to an error, ". It is the folder of a run: ..."; empty for what is not
    known."""
    if not path.exists():
        return ". There is no such file or folder"
    what = _folder(path) if path.is_dir() else _file(path)
    return f". It is {what}" if what else ""


def occupied(folder: Path) -> str | None:
    """What a folder is that a run must not be written to: a file, a prior, a training or diffusers
    folder; None for any other place."""
    if folder.is_file():
        return "a file"
    for name, what in (
        ("card.json", "a prior"),
        ("checkpoint.pt", "a training"),
        ("model_index.json", "a diffusers model"),
    ):
        if (folder / name).is_file():
            return f"the folder of {what}"
    return None


def _folder(path: Path) -> str:
    if (path / "run.json").is_file():
        return (
            f"the folder of a run: `posteriori report {path}` writes its page, "
            "and posteriori.Run.load reads its samples"
        )
    if (path / "card.json").is_file():
        return f"the folder of a prior: a problem file uses it by prior: {{path: {path}}}"
    if (path / "checkpoint.pt").is_file():
        return (
            "a training folder: "
            f"`posteriori train CONFIG --out {path} --export PRIOR` makes a prior of it"
        )
    if (
        (path / "unet").is_dir()
        or (path / "scheduler_config.json").is_file()
        or (path / "model_index.json").is_file()
    ):
        return (
            "a folder of the diffusers library: "
            f"load it by from_diffusers, or in a problem file by prior: {{diffusers: {path}}}"
        )
    runs, priors = (
        sorted(p.parent.name for p in path.glob(f"*/{name}")) for name in ("run.json", "card.json")
    )
    if priors:
        return f"a folder that holds priors: name one of {', '.join(priors[:5])}"
    if runs:
        return f"a folder that holds runs: {', '.join(runs[:5])}"
    files = sorted(p.name for p in path.iterdir() if p.is_file())
    if pictures := [name for name in files if name.lower().endswith(PICTURE_SUFFIXES)]:
        return f"a folder of pictures: name one of {', '.join(pictures[:5])}"
    if files:
        return f"a folder that holds {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}"
    return "an empty folder" if not any(path.iterdir()) else ""


def _file(path: Path) -> str:
    suffix = path.suffix.lower()
    if path.name == "card.json":
        return f"the card of a prior: name its folder, {path.parent}"
    if suffix in PICTURE_SUFFIXES:
        return f"a picture: a problem file names it by measurement: {{file: {path.name}}}"
    if suffix in ARRAYS:
        return "a file of arrays or weights"
    if suffix in (".yaml", ".yml"):
        return (
            f"a YAML file: `posteriori solve {path}` for a problem, "
            f"`posteriori train {path}` for a training"
        )
    return "a Python file: its classes are named FILE.py:CLASS" if suffix == ".py" else ""
