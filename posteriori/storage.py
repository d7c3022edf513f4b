"""Files are written whole or not at all: beside their place, flushed to the disk, renamed. A kill
leaves the old one or the new one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What libraries that write by themselves say of a full disk, or of a quota that is used up.
SAID = ("no space left", "os error 28", "disk quota exceeded", "os error 122", "storagefull")


class FullDiskError(OSError):
    """There is no room for a file; what stood in its place before is as it was."""


@contextmanager
def written_whole(place: Path, size: int) -> Iterator[Path]:
    """A path to write to; what is there in the end, about ``size`` bytes, becomes ``place``. After
    an exception nothing of it stays.

    Raises ``FullDiskError`` naming the file, the room that it takes and the room that there is.
    """
    beside = place.with_name(place.name + ".partial")
    try:
        yield beside
        with beside.open("rb") as handle:
            os.fsync(handle.fileno())
        beside.replace(place)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        free = shutil.disk_usage(place.parent).free
        if full(error) or (isinstance(error, Exception) and free < size):
            raise FullDiskError(
                f"no room on the disk for {place}: "
                f"it takes {_amount(size)}, {_amount(free)} are free there. "
                "Nothing of it was written, and what stood there before is as it was"
            ) from error
        raise


def full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    number = getattr(error, "errno", None)
    return (
        isinstance(error, FullDiskError)
        or number in (errno.ENOSPC, errno.EDQUOT)
        or any(word in str(error).lower() for word in SAID)
    )


def write_bytes(place: Path, data: bytes) -> None:
    """A file of these bytes. Raises ``FullDiskError``."""
    with written_whole(place, len(data)) as beside:
        beside.write_bytes(data)


def write_text(place: Path, text: str) -> None:
    """A text file, in a folder that is made if need be. Raises ``FullDiskError``."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(place, text.encode())


def _amount(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size >= 1e5 else f"{size / 1e3:.3g} kB"


def put_folder(new: Path, path: Path) -> None:
    """Let the finished folder ``new`` stand at ``path``, in place of what stood there. Where that
    fails, what stood there stays."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    try:
        new.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
