"""zarr: an array in a folder of chunks, or the finest level of an OME-Zarr picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from posteriori.extras import require_extra
from posteriori.measurements.measured import (
    UNKNOWN,
    Measured,
    as_array,
    as_tensor,
    stated,
    with_stated,
)
from posteriori.storage import put_folder

ZARR = ".zarr"


def read_zarr(path: str | Path, key: str | None = None) -> Measured:
    """The array of a .zarr folder, the one named ``key`` in it, or level 0 of an OME-Zarr picture
    with its axes and steps. Raises ``ImportError`` naming the extra, ``ValueError`` naming the
    folder."""
    path = Path(path)
    require_extra("files", f"reading {path.name}", "zarr")
    import zarr

    if not path.exists():
        raise FileNotFoundError(f"no such folder: {path}")
    try:
        found: Any = zarr.open(path, mode="r")
    except Exception as error:  # zarr has no common class for what is no store
        raise ValueError(
            f"{path} is no zarr array or group: {str(error).splitlines()[0]}"
        ) from None
    if isinstance(found, zarr.Array):
        return with_stated(as_tensor(found[...], path), dict(found.attrs))
    levels = _multiscales(found)
    if levels is not None and key is None:
        return _ome(path, found, levels)
    names = sorted(name for name, _ in found.arrays())
    if key is None and len(names) == 1:
        key = names[0]
    if key not in names:
        asked = "choose one by key" if key is None else f"there is no array {key!r}"
        raise ValueError(f"{path} holds {', '.join(names) or 'no array'}: {asked}")
    return with_stated(as_tensor(found[key][...], path), dict(found[key].attrs))


def write_zarr(path: str | Path, m: Measured) -> tuple[str, ...]:
    """One array in its own dtype (nothing is wrapped into fewer bits), with axes, unit and steps
    as attributes. What stood at ``path`` is replaced when the new array is whole."""
    path = Path(path)
    require_extra("files", f"writing {path.name}", "zarr")
    import zarr

    beside = path.with_name(path.name + ".partial")
    if path.exists() and not ((path / "zarr.json").exists() or (path / ".zarray").exists()):
        raise ValueError(f"{path} is a folder that holds no zarr array; it is not replaced")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        zarr.create_array(str(beside), data=as_array(m.data), attributes=_plain_json(stated(m)))
        put_folder(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return ()


def _multiscales(group: Any) -> dict[str, Any] | None:
    attributes = dict(group.attrs)
    listed = attributes.get("ome", attributes).get("multiscales")
    return listed[0] if listed else None


def _ome(path: Path, group: Any, levels: dict[str, Any]) -> Measured:
    finest = levels["datasets"][0]
    data = as_tensor(group[finest["path"]][...], path)
    named = [a if isinstance(a, dict) else {"name": a} for a in levels.get("axes", [])]
    letters = "".join(a["name"].upper() if a["name"].upper() in "TCZYX" else UNKNOWN for a in named)
    axes = letters if len(letters) == data.ndim else UNKNOWN * data.ndim
    scale = next(
        (t["scale"] for t in finest.get("coordinateTransformations", []) if "scale" in t), None
    )
    units = {a.get("unit") for a in named if a["name"].upper() in "ZYX"} - {None}
    spacing = None
    if scale is not None and len(scale) == data.ndim and len(units) == 1:
        spacing = tuple(float(s) if a in "ZYX" else None for s, a in zip(scale, axes, strict=True))
    count = len(levels["datasets"])
    notes = (f"{path.name}: the finest of {count} levels was read",) if count > 1 else ()
    return Measured(
        data, axes, "", spacing, notes=notes, spacing_unit=str(units.pop()) if spacing else "mm"
    )


def _plain_json(beside: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    if "spacing" in beside:
        beside["spacing"] = [None if step != step else step for step in beside["spacing"]]
    return beside
