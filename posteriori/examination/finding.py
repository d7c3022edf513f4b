"""One line of an examination, and the table that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """One line.

    name: of the line. verdict: "skip" for what could not be judged. value: what was found, with its
    number. expected: what a sound problem has. remedy: what to do; of a line that was skipped,
    why it was.
    """

    name: str
    verdict: Verdict
    value: str
    expected: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """The lines in the order in which they were judged, and the reason of each method that refuses
    the problem (None where it applies)."""

    findings: tuple[Finding, ...]
    methods: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no line failed."""
        return all(line.verdict != "fail" for line in self.findings)

    def __getitem__(self, name: str) -> Finding:
        """The line of a name. Raises ``KeyError`` where there is none."""
        for line in self.findings:
            if line.name == name:
                return line
        raise KeyError(name)

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "passed": self.passed,
            "findings": [asdict(line) for line in self.findings],
            "methods": dict(self.methods),
        }

    def __str__(self) -> str:
        apply = [name for name, reason in self.methods.items() if reason is None]
        rows = [finding_table(self.findings)]
        if self.methods:
            rows.append(f"\nmethods that apply: {', '.join(apply) or 'none'}")
            rows += [
                f"  {name} refuses: {reason.removeprefix(f'{name}: ')}"
                for name, reason in self.methods.items()
                if reason
            ]
        return "\n".join(rows)


def finding_table(findings: tuple[Finding, ...]) -> str:
    """An aligned table; the remedy of a line that did not pass is below it."""
    rows = [("line", "verdict", "found", "expected")]
    rows += [(f.name, f.verdict, f.value, f.expected) for f in findings]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    out = []
    for row, found in zip(rows, (None, *findings), strict=True):
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        out.append("  ".join([*cells, row[3]]).rstrip())
        if found is not None and found.verdict != "pass" and found.remedy:
            out.append(f"    {found.remedy}")
    return "\n".join(out)
