"""Is a file what its name says? Asked before any decoder sees it, because decoders answer in
riddles."""

from __future__ import annotations

from pathlib import Path

from posteriori import places

PRETENDERS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    ),
    (b"<!doctype html", "a web page, not data: a download that went wrong; fetch it again"),
    (b"<html", "a web page, not data: a download that went wrong; fetch it again"),
)


def checked(path: str | Path) -> Path:
    """The path of a readable file with something in it.

    Raises ``FileNotFoundError`` when there is none, and ``ValueError`` naming the file when it is a
    folder, empty, a Git LFS pointer or a web page saved under another name.
    """
    path = Path(path)
    if not path.exists():
        beside = (
            sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:5]
            if path.parent.is_dir()
            else []
        )
        raise FileNotFoundError(
            f"no such file: {path}" + (f" (in that folder: {', '.join(beside)})" if beside else "")
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder, a file is expected{places.place_description(path)}")
    with path.open("rb") as handle:
        head = handle.read(64)
    if not head:
        raise ValueError(f"{path} is empty (0 bytes)")
    for start, what in PRETENDERS:
        if head.lstrip().lower().startswith(start):
            raise ValueError(f"{path} is {what}")
    return path
