"""HDF5 files: those of fastMRI and ISMRMRD, and any other by the name of one of its arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import Measured, as_array, as_tensor, stated, with_stated
from posteriori.storage import written_whole

HDF5 = (".h5", ".hdf5")
DATA = "data"


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """The open file. It is not locked: a lock fails on many shared folders, and nothing is written.
    Raises ``ImportError`` naming the extra, ``ValueError`` naming a damaged file."""
    require_extra("files", f"reading {path.name}", "h5py")
    import h5py

    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read as HDF5, or was not written to its end: "
            f"{str(error).splitlines()[0]}"
        ) from None
    with file:
        yield file


def read_hdf5(path: str | Path, key: str | None = None) -> Measured:
    """What a .h5 file holds: of fastMRI and ISMRMRD the k-space, of any other the one array, or the
    one at ``key``. Complex numbers are complex however they are stored.

    Raises ``ImportError`` naming the extra, ``ValueError`` naming the file and its arrays.
    """
    path = checked(path)
    with opened_hdf5(path) as file:
        if key is None and "kspace" in file:
            from posteriori.measurements.fastmri import read_fastmri

            return read_fastmri(path, file)
        groups = [name for name, part in file.items() if _holds_acquisitions(part)]
        if groups and key in (None, *groups):
            from posteriori.measurements.raw_kspace import read_ismrmrd

            if len(groups) > 1 and key is None:
                raise ValueError(f"{path} holds {', '.join(groups)}: choose one by key")
            return read_ismrmrd(path, file[key or groups[0]])
        found = _chosen(path, file, key)
        data = as_tensor(found[()], path)
        return with_stated(data, dict(found.attrs))


def write_hdf5(path: str | Path, m: Measured, key: str = DATA) -> tuple[str, ...]:
    """One array with its axes, unit and spacing as attributes, under the name ``key``. Nothing is
    left out."""
    path = Path(path)
    require_extra("files", f"writing {path.name}", "h5py")
    import h5py

    array = as_array(m.data)
    with written_whole(path, array.nbytes) as beside, h5py.File(beside, "w") as file:
        place = file.create_dataset(key, data=array)
        for name, value in stated(m).items():
            place.attrs[name] = value
    return ()


def _holds_acquisitions(part: Any) -> bool:
    return hasattr(part, "keys") and "xml" in part and "data" in part


def _chosen(path: Path, file: Any, key: str | None) -> Any:
    import h5py

    names: list[str] = []
    file.visititems(
        lambda name, part: names.append(name) if isinstance(part, h5py.Dataset) else None
    )
    if key is None and len(names) == 1:
        key = names[0]
    if key not in names:
        asked = "choose one by key" if key is None else f"there is no array {key!r}"
        raise ValueError(f"{path} holds {', '.join(sorted(names)[:8]) or 'no array'}: {asked}")
    return file[key]
