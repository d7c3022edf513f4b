"""The methods as records and as a table, from what they declare."""

from __future__ import annotations

from typing import Any

from posteriori.methods import ALL


def records() -> list[dict[str, Any]]:
    """One record per method, in the order of ``methods.ALL``."""
    return [
        {
            "name": name,
            "family": method.family,
            "needs": sorted(method.needs),
            "cost": method.cost,
            "claims": sorted(method.claims),
            "reference": method.reference,
            "summary": (method.__doc__ or "").strip().split("\n")[0],
        }
        for name, method in ALL.items()
    ]


def text() -> str:
    """An aligned table; claims below each row."""
    columns = ("name", "family", "needs", "cost", "reference")
    rows = [{**r, "needs": ", ".join(r["needs"]) or "-"} for r in records()]
    widths = {c: max(len(c), *(len(str(r[c])) for r in rows)) for c in columns}
    lines = ["  ".join(c.ljust(widths[c]) for c in columns)]
    for r in rows:
        lines.append("  ".join(str(r[c]).ljust(widths[c]) for c in columns).rstrip())
        lines += [f"    claims: {claim}" for claim in r["claims"]]
    return "\n".join(lines)
