"""The command line: parse, call, save. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

DEBUG = "--debug"
HELP = f"Posterior samples for inverse problems with diffusion models. {DEBUG} anywhere shows where an error came from."
app = App(name="posteriori", help=HELP, version_flags=["--version"])


@app.command
def demo(*, out: Path = Path("demo"), quick: bool = False) -> None:
    """Restore a real photograph with several methods and write a page about it.

    Parameters
    ----------
    out: folder for the runs and index.html; an existing demo there is replaced.
    quick: fewer steps and samples.
    """
    from posteriori.cli.demo import run

    run(out, quick)


@app.command
def solve(
    problem: Path,
    *,
    out: Path,
    resume: bool = False,
    quiet: bool = False,
    checkpoint_seconds: float = 20.0,
) -> None:
    """Solve the problem that a YAML file describes.

    Parameters
    ----------
    problem: the problem file.
    out: the run folder to write: run.json, samples.safetensors, pictures, index.html.
    resume: go on with an interrupted run in that folder, to the same samples.
    quiet: no progress bar.
    checkpoint_seconds: time between checkpoints.
    """
    from posteriori.cli.solve import run

    run(problem, out, resume=resume, progress=not quiet and sys.stderr.isatty(), checkpoint_seconds=checkpoint_seconds)


@app.command
def methods(*, json_: Annotated[bool, Parameter(name="--json")] = False, markdown: bool = False, scores: Path | None = None) -> None:
    """List the methods: family, what they need, what a step costs, what is proven and tested.

    Parameters
    ----------
    json_: print a JSON list instead of a table.
    markdown: print the table of the documentation instead.
    scores: rows of ``bench exact --json`` that the Markdown table quotes.
    """
    from posteriori.cli import listing

    if markdown:
        print(listing.markdown(json.loads(scores.read_text()) if scores else []), end="")
    else:
        print(json.dumps(listing.records(), indent=1) if json_ else listing.text())


@app.command
def train(config: Path, *, out: Path, export: Path | None = None, quiet: bool = False) -> None:
    """Train a prior by denoising score matching, or go on with a run in the same folder.

    Parameters
    ----------
    config: training file; see configs/photos.yaml.
    out: folder of the training run, with its checkpoint.
    export: also save the averaged weights as a prior there, with a sheet of samples.
    quiet: no progress bar.
    """
    from posteriori.training import config as configs
    from posteriori.training import export as exports
    from posteriori.training import score_matching

    settings = configs.read(config)
    score_matching.train(settings, out, progress=not quiet)
    if export is not None:
        exports.export(settings, out, export)
        print(f"prior saved in {export}")


@app.command
def report(folder: Path, *, out: Path | None = None) -> None:
    """Write one self-contained page for a run folder, or for a folder of runs.

    Parameters
    ----------
    folder: what ``solve`` or ``demo`` wrote.
    out: the page; index.html in that folder by default.
    """
    from posteriori.report import page

    print(page(folder, out))


bench_app = App(name="bench", help="Measure methods: where the posterior is known, and on photographs.")
app.command(bench_app)


@bench_app.command
def exact(
    *,
    bed: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    cells: tuple[str, ...] = (),
    steps: tuple[int, ...] = (),
    schedule: tuple[str, ...] = (),
    seeds: int | None = None,
    without: tuple[str, ...] = (),
    sample_seed: int | None = None,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Score methods on problems whose posterior is known, beside floor and oracle.

    Parameters
    ----------
    bed: gmm25 (sliced Wasserstein), gaussian (KL by the affine probe), bipsda, ksd, mixture256; all by default.
    methods: names as in ``posteriori methods``, and floor, oracle, prior; all by default.
    cells: d,d_y for gmm25 (such as 8,1); white, diagonal, general for gaussian; inpainting-low, inpainting-high, ct, phase for bipsda; the
        noise level 0.2, 0.5 for ksd; all by default.
    steps: numbers of noise levels; by default those in which a bed is reported (20 and 100; 200 for bipsda).
    schedule: original, extended (ten times further); both by default.
    seeds: problems per cell; 20 for gmm25 and 5 for the others by default.
    without: methods to leave out.
    sample_seed: seed of all samples; by default each problem has its own. 0 repeats rows that state none.
    json_: write one row per run there, and the tables beside it as Markdown and as a page; rows that it holds already are kept.
    quick: gmm25 with three seeds, d = 8, 20 steps, original schedule and the Gaussian beds, all methods but
        ScorePriorVI, where not said otherwise.
    quiet: no progress bar.
    """
    from posteriori.cli import bench as runner

    if quick:
        bed = bed or ("gmm25", "gaussian")
        small = {"gmm25": ("8,1", "8,2", "8,4"), "gaussian": ("white", "diagonal", "general")}
        cells = cells or tuple(cell for name in bed for cell in small.get(name, ()))
        steps, seeds = steps or (20,), 3 if seeds is None else seeds
        schedule = schedule or (("original",) if "gmm25" in bed else ())
        # Half a minute a row: not quick, unless it is asked for.
        without = without if methods else (*without, "ScorePriorVI")
    runner.run(
        runner.Selection(bed, methods, cells, steps, schedule, seeds, without, sample_seed), json_, not quiet and sys.stderr.isatty()
    )


@bench_app.command
def images(
    *,
    images: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    steps: int | None = None,
    side: int | None = None,
    limit: float | None = None,
    out: Path = Path("images.png"),
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Run methods with their default settings on photographs, with the shipped prior: tables and a contact sheet.

    Parameters
    ----------
    images: astronaut, chelsea; both by default.
    problems: blur, downsample, box, random (inpainting); all by default.
    methods: names as in ``posteriori methods``; all by default. The Wiener estimate is always beside them.
    steps: noise levels; 100 by default.
    side: of the crops, in pixels, a multiple of 8 from 32 to 256; 128 by default.
    limit: seconds after which a run is given up and its row says so; none by default.
    out: the contact sheet, a PNG file.
    json_: write one row per image, problem and method there, the pictures and the tables beside it; rows that it holds already are not
        measured again.
    quick: where not said otherwise the astronaut, 64 pixels, 10 steps, at most 5 seconds a row.
    quiet: no progress bar.
    """
    from posteriori.cli import bench_images as runner

    if quick:
        images, limit = images or ("astronaut",), 5.0 if limit is None else limit
    sizes = (64, 10) if quick else (128, 100)
    chosen = runner.Selection(images, problems, methods, sizes[0] if side is None else side, sizes[1] if steps is None else steps, limit)
    runner.run(chosen, json_, out, not quiet and sys.stderr.isatty())


@app.command
def study(
    name: str | None = None,
    /,
    *,
    quick: bool = False,
    out: Path = Path("studies"),
    list_: Annotated[bool, Parameter(name="--list")] = False,
    quiet: bool = False,
) -> None:
    """Answer a question of the field: data, figure and a page, with all that is needed to repeat it.

    Parameters
    ----------
    name: the study; see --list.
    quick: fewer cells, under a minute, to see how it works; never in the same files as a full run.
    out: folder for NAME.json, .csv, .png, .md and .html; cells that NAME.json holds already are not measured again.
    list_: print the name and the question of every study.
    quiet: no progress bar.
    """
    from posteriori.cli.study import listing, run

    if list_:
        print(listing())
        return
    run(name, out, quick, not quiet and sys.stderr.isatty())


@app.command
def env() -> None:
    """Versions and hardware, for a bug report."""
    from posteriori.cli.machine import text

    print(text())


def main(words: Sequence[str] | None = None) -> None:
    """The entry point: an expected error is one message on stderr and exit code 2; ``--debug`` anywhere shows where it came from."""
    words = sys.argv[1:] if words is None else words
    with warnings.catch_warnings():
        warnings.showwarning = _said
        try:
            app([word for word in words if word != DEBUG], exit_on_error=False, print_error=False)
        except KeyboardInterrupt:
            print("posteriori: interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except (CycloptsError, ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError, MemoryError) as error:
            if DEBUG in words:
                raise
            print(f"posteriori: {error or type(error).__name__}{_in_own_code(error)}", file=sys.stderr)
            raise SystemExit(2) from None


def _in_own_code(error: BaseException) -> str:
    """Where in a module of the user's own an error came from that does not say so; empty when from nowhere there."""
    if "posteriori.problems.modules" not in sys.modules or isinstance(error, CycloptsError):
        return ""
    from posteriori.problems.modules import where

    place = where(error)
    return f" ({place}; {DEBUG} shows the way there)" if place and place not in str(error) else ""


def _said(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a sentence, without the line of source that it came from."""
    print(f"warning: {message}", file=sys.stderr)
