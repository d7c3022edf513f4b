"""Tables of the guide: which method, what went wrong in the pictures of failures, what the survey
has and this package has not."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

import posteriori
from posteriori.cli.listing import _scores
from posteriori.methods import ALL
from posteriori.problem_file.advice import RECOMMENDED

DOCS = Path(__file__).resolve().parents[1]
SITE = Path(__file__).parent
KINDS = {
    "known": "A linear, Gaussian noise; the prior has a denoiser under what x and y leave",
    "told": "the same, of a network trained for the noise that a blur, block means or a hole leave",
    "linear": "any other prior; A linear, Gaussian noise",
    "few": "the same, y of a few numbers: several modes are possible",
    "counts": "A linear, photon counts or other noise",
    "magnitudes": "Fourier magnitudes: phase retrieval",
    "jpeg": "a JPEG file",
    "curved": "any other A that is not linear",
}


def result(name: str) -> Any:
    """A file of measured results."""
    return json.loads((DOCS / "results" / name).read_text(encoding="utf-8"))


def spelled(raw: Any) -> str:
    """A recommended method as one writes it in Python."""
    if isinstance(raw, str):
        return raw
    settings = ", ".join(f"{key}={value}" for key, value in raw.items() if key != "name")
    return f"{raw['name']}({settings})"


def by_kind() -> str:
    """The library's own choice for each kind of problem, from the code, with the reason that
    docs/results/advice.md gives."""
    why = dict(
        re.findall(
            r"(?m)^\| (\w+) \| [^|]+ \| (.+) \|$", (DOCS / "results" / "advice.md").read_text()
        )
    )
    lines = ["| problem | first choice | why | next |", "|---|---|---|---|"]
    for kind, methods in RECOMMENDED.items():
        first, *rest = (f"`{spelled(raw)}`" for raw in methods)
        reason = re.sub(r"\]\((?!\.\.)([^)]+\.md)\)", r"](../results/\1)", why.get(kind, ""))
        reason = reason.replace("(below)", "([measured](../results/advice.md))")
        lines.append(f"| {KINDS.get(kind, kind)} | {first} | {reason} | {', '.join(rest)} |")
    return "\n".join(lines)


def findings(study: str) -> list[str]:
    """What a study found, as its page says it."""
    text = (DOCS / "studies" / f"{study}.md").read_text(encoding="utf-8")
    return re.findall(r"(?m)^\d+\. (.+)$", text)


def coverage_findings() -> str:
    """The first finding of the coverage study."""
    return f"> {findings('posterior-coverage')[0]}"


def photographs() -> dict[str, dict[str, float]]:
    """Of each method on photographs: calls, VJPs, and averages over problems, where none was
    lost."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in result("images.json"):
        rows[row["method"]].append(row)
    whole = max(len(mine) for mine in rows.values())
    told = {}
    for method, mine in rows.items():
        if len(mine) == whole and all(
            r["outcome"] == "finished" and r["psnr"] is not None for r in mine
        ):
            told[method] = {
                k: fmean(r[k] for r in mine) for k in ("denoiser", "vjp", "psnr", "ssim", "chi2")
            }
    return told


def by_price() -> str:
    """Calls and averages on photographs, cheapest first."""
    told = photographs()
    lines = [
        "| method | calls | VJPs | PSNR (dB) | SSIM | chi-square |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for method, row in sorted(
        told.items(), key=lambda pair: pair[1]["denoiser"] + 2 * pair[1]["vjp"]
    ):
        name = f"`{method}`" if method in ALL else method
        counts = f"{row['denoiser']:.0f} | {row['vjp']:.0f}"
        scores = f"{row['psnr']:.1f} | {row['ssim']:.2f} | {row['chi2']:.3g}"
        lines.append(f"| {name} | {counts} | {scores} |")
    return "\n".join(lines)


def by_wish() -> str:
    """Decisions that the kind of problem does not make."""
    rows = result("exact.json")
    cell = ("gmm25", "8,2", "extended", 20)
    smc, floor, mmps = (_scores(rows, cell, name) for name in ("MomentSMC", "floor", "MMPS"))
    eps = _scores(rows, ("gaussian", "general", "karras", 100), "EPS")
    pictures = {name: row for name, row in photographs().items() if name in ALL}
    best = max(pictures, key=lambda name: pictures[name]["psnr"])
    blind = result("blind-photographs.json")
    found = sum(row["correlation"] is not None and row["correlation"] >= 0.8 for row in blind)
    photos = "([photographs](../results/images.md))"
    coverage = "[coverage](../studies/posterior-coverage.md)"
    modes = findings("multimodal")[0].split(":")[0]
    table = [
        (
            "samples whose spread can be trusted",
            "`MMPS` (linear A); `EPS` where the prior answers under coloured noise",
            "no fault found, or too wide; few ancestral steps are too narrow for any method "
            f"({coverage}); EPS on a Gaussian posterior: KL {eps} ([scoreboard](../methods.md))",
        ),
        (
            "every mode, in the right share; y of few numbers",
            "`MomentSMC`",
            f"sliced Wasserstein distance {smc} where two exact sets are {floor} apart and MMPS "
            f"is at {mmps}, median (mean) over 20 problems ([scoreboard](../methods.md))",
        ),
        (
            "every mode; y of many numbers",
            "`FPS`, `TDS` with a cloud for each sample",
            f"{modes}: these two among them ([modes](../studies/multimodal.md)). One cloud of "
            "images degenerates ([half-hidden digits](../results/digits-half.md))",
        ),
        (
            "one image with the least squared error, no spread",
            f"`{best}`",
            f"{pictures[best]['psnr']:.1f} dB on average, the best of {len(pictures)} methods, at "
            f"{pictures[best]['denoiser']:.0f} calls and {pictures[best]['vjp']:.0f} VJPs "
            f"{photos}; the mean of many samples of any good method serves as well",
        ),
        (
            "an answer in few calls, no VJP",
            "`DDRM` (closed-form spectrum), else `DiffPIR`",
            f"{pictures['DDRM']['psnr']:.1f} and {pictures['DiffPIR']['psnr']:.1f} dB in "
            f"{pictures['DDRM']['denoiser']:.0f} calls {photos}; their intervals are too narrow "
            f"({coverage})",
        ),
        (
            "an ill-conditioned A",
            "`MMPS`, `MomentSMC`, `TDS`",
            f"{findings('jensen-limits')[0]} ([limits](../studies/jensen-limits.md))",
        ),
        (
            "the instrument is not known",
            "`GibbsDDRM` or `GibbsDiffusion` for a few numbers; `FastDiffusionEM` for a kernel",
            f"FastDiffusionEM found {found} of {len(blind)} kernels ([blind](../results/blind.md))",
        ),
        (
            "A is a program without derivatives",
            "`EnKG`, `CBG`",
            "[a fluid and a chain of degradations](../results/blind.md)",
        ),
        (
            "volumes and video",
            "`DDS3D`, `DiffusionMBIR`, `TPDM`; `SVI`",
            "[videos and tiles](../results/volumes.md), [chest CT](../results/chest-ct.md)",
        ),
        (
            "the prior knows other images than yours",
            "`DDIP`, `SCD`",
            "[what adaptation gains](../results/scarce-data.md)",
        ),
        (
            "there are no clean images to train on",
            "train with `ambient`, `gsure` or `em`",
            "[priors from corrupted data](../results/scarce-data.md)",
        ),
        (
            "a latent prior or a text",
            "`PSLD`, `P2L`, `TReg`, `ReSample`",
            "[what a caption decides](../results/text.md), [pipelines](../latent.md)",
        ),
        (
            "what a paper reports",
            "`X.published()`",
            "[published settings beside the defaults](../results/published.md)",
        ),
    ]
    rows = [f"| {wish} | {take} | {measured} |" for wish, take, measured in table]
    return "\n".join(["| you want | take | measured |", "|---|---|---|", *rows])


def failure(name: str) -> str:
    """The numbers of one picture of docs/pictures/failures."""
    told = json.loads((DOCS / "pictures" / "failures" / "failures.json").read_text())[name]
    keys = list(dict.fromkeys(key for row in told.values() for key in row))
    words = {
        "chi2": "chi-square",
        "psnr": "PSNR of a sample (dB)",
        "spread": "mean spread",
        "largest": "largest value",
    }
    lines = [
        "| | " + " | ".join(words[key] for key in keys) + " |",
        "|---" + "|---:" * len(keys) + "|",
    ]
    for label, row in told.items():
        lines.append(f"| {label} | " + " | ".join(f"{row[key]:.3g}" for key in keys) + " |")
    return "\n".join(lines)


def coverage() -> dict[str, list[dict[str, Any]]]:
    """The list of docs/site/coverage.yaml."""
    return yaml.safe_load((SITE / "coverage.yaml").read_text(encoding="utf-8"))


def coverage_table() -> str:
    """Every method of the survey: where it is, or why it is not; then those that are here beside
    it."""
    lines = [
        "| family | method of the survey | here | planned, or why left out |",
        "|---|---|---|---|",
    ]
    named: set[str] = set()
    for group, rows in coverage().items():
        for row in rows:
            here = row.get("here", [])
            named |= {name.removeprefix("methods.") for name in here}
            why = (
                f"planned: {row['planned']}"
                if "planned" in row
                else f"left out: {row['left-out']}"
                if "left-out" in row
                else ""
            )
            places = ", ".join(f"`{name}`" for name in here) or "-"
            lines.append(f"| {group} | {row['method']} | {places} | {why} |")
    beyond = [name for name in ALL if name not in named]
    return "\n".join(
        [*lines, "", "Here beside the survey: " + ", ".join(f"`{name}`" for name in beyond) + "."]
    )


def resolves(name: str) -> bool:
    """Whether a name of the coverage list is something of the package."""
    if name.startswith("training "):
        from posteriori.training import config

        source = Path(config.__file__).read_text(encoding="utf-8")
        return f'name: Literal["{name.removeprefix("training ")}"]' in source
    thing: Any = posteriori
    for part in name.split("."):
        thing = getattr(thing, part, None)
    return thing is not None


def errors(family: str) -> str:
    """What is wrong with published rules of a family, and the tests that show it."""
    told = yaml.safe_load((SITE / "published_errors.yaml").read_text(encoding="utf-8"))
    mine = [row for row in told if ALL[row["method"]].family == family]
    lines = ["| method | what | test |", "|---|---|---|"]
    for row in mine:
        file, name = row["test"].split("::")
        words = name.removeprefix("test_").replace("_", " ")
        lines.append(f"| {row['method']} | {row['what']} | [{words}](../../{file}) |")
    return "\n".join([*lines, "", "Other departures are in each method's own text, below."])
