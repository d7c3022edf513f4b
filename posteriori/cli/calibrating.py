"""``posteriori calibrate``: are a method's samples calibrated on this problem, and the scaling that
makes their intervals hold. Heavy imports wait for a problem."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import Tensor

    from posteriori.likelihood import Posterior
    from posteriori.priors import Prior
    from posteriori.problem_file import Problem
    from posteriori.trials import Calibration, Trial


def calibrate_command(
    problem: Path,
    /,
    *,
    out: Path | None = None,
    trials: int = 40,
    truths: str | None = None,
    measured: str | None = None,
    seed: int = 0,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    quiet: bool = False,
) -> None:
    """Judge the samples of a problem's method on truths that are known, and find the scaling that
    makes its intervals hold: Run.interval(0.9, calibrated=FOLDER). The exit code is 1 where a line
    fails.

    Truths are drawn from the prior and measured by the problem's operator and noise, or given. The
    same command goes on with what is in the folder.

    Parameters
    ----------
    problem:
        the problem file, YAML; or the folder of a run that ``solve`` wrote, in which the
        calibration is then kept.
    out:
        folder of the calibration: that of a run of this problem, or another; by default the run's,
        and calibration for a file.
    trials:
        truths that are drawn; each takes at least 20 samples.
    truths:
        clean images in their place, such as "clean/*.png"; none by default.
    measured:
        a measurement of each of these truths, in the order of their names, such as "scans/*.npy";
        by default they are simulated.
    seed:
        of truths, noise and samples.
    json_:
        print JSON instead of a table.
    quiet:
        no progress bar, and no lines in its place where there is no terminal.
    """
    from posteriori.cli.resuming import resumable

    place = out or (problem if problem.is_dir() else Path("calibration"))
    with resumable(lambda: trials_kept(place)):
        found = calibrate_problem(
            problem, place, trials, truths, measured, seed, progress=not quiet
        )
    print(json.dumps(found.record(), indent=1) if json_ else _told(found, place))
    if not found.passed:
        raise SystemExit(1)


def trials_kept(place: Path) -> str:
    """What an interrupted calibration has kept, for the message."""
    return f"{len(list((place / 'trials').glob('*.json')))} trials are kept in {place}"


def calibrate_problem(
    problem: Path,
    out: Path,
    trials: int,
    truths: str | None,
    measured: str | None,
    seed: int,
    *,
    progress: bool,
) -> Calibration:
    """The calibration of the method of a problem file, or of that of a run folder.

    Raises ``ValueError`` and ``FileNotFoundError`` as ``problem_file.load`` and ``build``, and for
    truths and measurements that do not go together.
    """
    from posteriori.trials import calibrate

    if measured is not None and truths is None:
        raise ValueError("--measured needs --truths: the clean image of each measurement")
    given, folder = _problem(problem, out), Path.cwd() if problem.is_dir() else problem.parent
    prior = given.prior.build(given.arithmetic)
    task = given.build(prior)
    for note in task.notes:
        print(note, file=sys.stderr)
    if task.choice is not None:
        print(task.choice, file=sys.stderr)
    if task.volume is not None:
        raise ValueError(
            "a volume is not calibrated as a whole; calibrate the problem of one of its slices"
        )
    pairs = None
    if truths is not None:
        clean = _files(truths, "--truths")
        pairs = (
            list(_simulated(given, task.posterior, clean, seed))
            if measured is None
            else list(_measured(given, folder, prior, clean, _files(measured, "--measured")))
        )
    how = {key: task.settings[key] for key in ("n", "steps", "grid", "antithetic")}
    _keep(given, out)
    return calibrate(
        task.posterior,
        task.method,
        **how,
        trials=trials,
        seed=seed,
        pairs=pairs,
        folder=out,
        progress=progress,
    )


def _keep(given: Problem, out: Path) -> None:
    """Write down the problem of a new calibration, and its precision: that of all trials."""
    from posteriori.conformal import RECORD
    from posteriori.run import write_json

    file = out / "problem.json"
    if not file.exists() and not (out / RECORD).exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, given.record)


def _problem(place: Path, out: Path) -> Problem:
    """That of a file, in the precision of the trials that are there, or of a run folder."""
    from posteriori import problem_file
    from posteriori.run import read_json

    if not place.is_dir():
        return problem_file.load(place, problem_file.settled_in(out / "problem.json", place))
    file = place / "problem.json"
    if not file.exists():
        raise FileNotFoundError(
            f"{place} holds no run that `posteriori solve` wrote: {file.name} is missing; give the "
            f"problem file, and this folder by --out"
        )
    raw = {key: value for key, value in read_json(file).items() if key != "code"}
    try:
        return problem_file.file.problem_of(
            raw, Path.cwd(), str(file), raw.get("precision", "float32")
        )
    except ValueError as error:
        raise ValueError(
            f"{error}\n  paths start at this folder, {Path.cwd()}; where they do not, give the "
            f"problem file, and the run by --out {place}"
        ) from None


def _simulated(given: Problem, post: Posterior, clean: list[Path], seed: int) -> Iterator[Trial]:
    """Given images, measured by the problem's operator and noise."""
    from posteriori.problem_file.reading import as_image
    from posteriori.trials import trial_of

    if post.given.range is None:
        raise ValueError(
            "--truths are images in a range, and what this problem samples has none: leave it out"
        )
    for k, image in enumerate(clean):
        truth, _ = as_image(image, post.given.range, given.reference or given.measurement)
        if post.given.A.complex_in and not truth.is_complex():
            truth = truth.to(post.given.y.dtype)
        yield trial_of(post, truth.to(post.given.y.device), seed + k)


def _measured(
    given: Problem, folder: Path, prior: Prior, clean: list[Path], shots: list[Path]
) -> Iterator[Trial]:
    """Given images and their measurements, read as a problem file's own."""
    from posteriori.problem_file.file import problem_of
    from posteriori.trials import Trial

    if len(shots) != len(clean):
        raise ValueError(f"{len(clean)} truths and {len(shots)} measurements; each truth needs one")
    for image, shot in zip(clean, shots, strict=True):
        sections = {
            "measurement": _reading(given.raw["measurement"]) | {"file": str(shot)},
            "reference": _reading(given.raw.get("reference")) | {"file": str(image)},
        }
        built = problem_of(given.raw | sections, folder, str(shot)).build(prior)
        assert built.reference is not None  # it was given
        yield Trial(_whole(built.reference, built.posterior, image), built.posterior)


def _reading(section: Any) -> dict[str, Any]:
    """How the numbers of a file are meant, without the file."""
    stated = section if isinstance(section, dict) else {}
    return {key: value for key, value in stated.items() if key not in ("file", "image", "seed")}


def _whole(truth: Tensor, post: Posterior, image: Path) -> Tensor:
    if post.given.frame is not None and tuple(truth.shape) != tuple(post.given.A.in_shape):
        raise ValueError(
            f"{image} shows what lies under y, images here are larger (boundary: valid); give the "
            "problem another boundary to calibrate it on given truths"
        )
    return truth.to(post.given.y.device)


def _files(pattern: str, option: str) -> list[Path]:
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (absolute patterns too)
    if not found:
        raise ValueError(f"{option} {pattern}: there is no such file")
    return [Path(place).resolve() for place in found]


def _told(found: Calibration, place: Path) -> str:
    lines = [str(found)]
    if found.conformal is not None:
        origin = (
            "draws of the prior, so far as the prior is right about what was measured"
            if found.simulated
            else "images exchangeable with the given ones"
        )
        lines.append(
            f"intervals: run.interval(0.9, calibrated={str(place)!r}) hold at least 90 % of an "
            f"image on average over {origin}"
        )
    return "\n".join(lines)
