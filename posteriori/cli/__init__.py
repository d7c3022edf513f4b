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


bench_app = App(name="bench", help="Measure methods on problems whose posterior is known.")
app.command(bench_app)


@bench_app.command
def exact(
    *,
    bed: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    cells: tuple[str, ...] = (),
    steps: tuple[int, ...] = (),
    schedule: tuple[str, ...] = (),
    seeds: int = 20,
    json_: Annotated[Path | None, Parameter(name="--json")] = None,
    quick: bool = False,
    quiet: bool = False,
) -> None:
    """Score methods against exact posteriors: sliced Wasserstein on GMM-25, KL on Gaussian beds, beside floor and oracle.

    Parameters
    ----------
    bed: gmm25, gaussian; all by default.
    methods: names as in ``posteriori methods``, and floor, oracle, prior; all by default.
    cells: d,d_y for gmm25 (such as 8,1), white, diagonal, general for gaussian; all by default.
    steps: numbers of noise levels; 20 and 100 by default.
    schedule: original, extended (gmm25); both by default.
    seeds: problems per cell of gmm25.
    json_: write one row per run there, and the table beside it as Markdown; rows that it holds already are not measured again.
    quick: three seeds, d = 8, 20 steps, original schedule, where not said otherwise.
    quiet: no progress bar.
    """
    from posteriori.cli import bench as runner

    if quick:
        cells = cells or ("8,1", "8,2", "8,4", "white", "diagonal", "general")
        steps, schedule, seeds = steps or (20,), schedule or ("original",), min(seeds, 3)
        cells = tuple(c for c in cells if not bed or (c.isalpha() and "gaussian" in bed) or (not c.isalpha() and "gmm25" in bed))
    runner.run(runner.Selection(bed, methods, cells, steps, schedule, seeds), json_, not quiet and sys.stderr.isatty())


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
            print(f"posteriori: {error or type(error).__name__}", file=sys.stderr)
            raise SystemExit(2) from None


def _said(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a sentence, without the line of source that it came from."""
    print(f"warning: {message}", file=sys.stderr)
