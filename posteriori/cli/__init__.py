"""The command line: parse, call, save. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from posteriori.cli.benches import bench_app
from posteriori.cli.calibrating import calibrate_command
from posteriori.cli.doctoring import doctor_command
from posteriori.cli.importing import import_command
from posteriori.cli.lists import Entries, StudyName, WrittenKind
from posteriori.cli.machine import env
from posteriori.cli.running import run_command
from posteriori.cli.tuning import tune_command

DEBUG = "--debug"
HELP = (
    "Posterior samples for inverse problems with diffusion models. "
    f"{DEBUG} anywhere shows where an error came from."
)
app = App(
    name="posteriori",
    help=HELP,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
)
app.suppress_keyboard_interrupt = False  # which would end without a word


@app.command
def demo(*, out: Path = Path("demo"), quick: bool = False) -> None:
    """Restore a real photograph with several methods and write a page about it.

    Parameters
    ----------
    out:
        folder for the runs and index.html; an existing demo there is replaced.
    quick:
        fewer steps and samples.
    """
    from posteriori.cli.demo import run_demo

    run_demo(out, quick)


@app.command(name="solve")
def solve_command(
    problem: Path,
    /,
    *,
    out: Path,
    resume: bool = False,
    quiet: bool = False,
    checkpoint_seconds: float = 20.0,
    workers: int | None = None,
    scheduler: str | None = None,
    write: WrittenKind | None = None,
    live: bool = False,
) -> None:
    """Solve the problem that a YAML file describes.

    Parameters
    ----------
    problem:
        the problem file, YAML; docs/problem-file.md lists its keys.
    out:
        the run folder to write: run.json, samples.safetensors, pictures, index.html.
    resume:
        go on with an interrupted run in that folder, to the same samples.
    quiet:
        no progress bar, and no lines in its place where there is no terminal.
    checkpoint_seconds:
        seconds between two checkpoints: what an interruption loses at most.
    workers:
        processes that share a volume's slices, to the bits of one process; this one by default.
    scheduler:
        the address of a dask scheduler whose workers, on any machines that see the same files,
        draw the slices of a volume; none by default.
    write:
        the kind of file in which volumes are written, and images beside their pictures; by default
        what the problem file says, or that of the measurement.
    live:
        let index.html tell of the run while it lasts: progress, time left, the first image now.
    """
    from posteriori.cli.resuming import resumable, run_kept
    from posteriori.cli.solve import solve_problem
    from posteriori.cli.volume import Workers

    if workers is not None and (workers < 1 or scheduler is not None):
        raise ValueError(
            f"--workers must be at least 1, got {workers}"
            if workers < 1
            else "give either --workers, of this machine, or --scheduler, which has its own"
        )
    with resumable(lambda: run_kept(out), "--resume"):
        solve_problem(
            problem,
            out,
            resume=resume,
            progress=not quiet,
            checkpoint_seconds=checkpoint_seconds,
            workers=Workers(workers, scheduler),
            write=write,
            live=live,
        )


@app.command
def compare(
    problem: Path,
    /,
    *,
    methods: Entries = (),
    out: Path = Path("comparison"),
    quiet: bool = False,
) -> None:
    """Run several methods, or settings of one, on the problem of a file: one table and one page.

    A folder that holds some of the runs is completed. A method that refuses or fails has a row with
    the reason.

    Parameters
    ----------
    methods:
        names such as DPS,MMPS or "DPS(scale=0.5),DPS(published),DDRM(steps=20)"; the file's list
        ``methods`` by default, and without one those that are recommended for its kind of problem.
    problem:
        the problem file, YAML.
    out:
        folder for table.md, index.html, and a run folder for each method.
    quiet:
        no progress bars, and no lines in their place where there is no terminal.
    """
    from posteriori.cli.compare import compare_methods
    from posteriori.cli.resuming import resumable, runs_kept

    with resumable(lambda: runs_kept(out)):
        compare_methods(problem, methods, out, progress=not quiet)


@app.command(name="methods")
def methods_command(
    *,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    markdown: bool = False,
    scores: Path | None = None,
) -> None:
    """List the methods: family, what they need, what a step costs, what is proven and tested.

    Parameters
    ----------
    json_:
        print a JSON list instead of a table.
    markdown:
        print the table of the documentation instead.
    scores:
        rows of ``bench exact --json`` that the Markdown table quotes; none by default.
    """
    from posteriori.cli import listing

    if markdown:
        print(listing.method_table(json.loads(scores.read_text()) if scores else []), end="")
    else:
        print(json.dumps(listing.records(), indent=1) if json_ else listing.method_list())


@app.command(name="train")
def train_command(
    config: Path,
    /,
    *,
    out: Path,
    export: Path | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Train a prior, on complete images or on corrupted ones, or an autoencoder, or go on with a
    run in the same folder. Ctrl-C stops it after its step.

    Parameters
    ----------
    config:
        the training file, YAML; see configs/photos.yaml.
    out:
        folder of the training run, with its checkpoint.
    export:
        folder in which the averaged weights are also saved as a prior, with a sheet of samples;
        none by default.
    device:
        cpu, cuda, cuda:1 or another name of torch; auto is a CUDA GPU where there is one, else the
        CPU.
    quiet:
        no progress bar.
    """
    from posteriori.cli.resuming import resumable
    from posteriori.training import config as configs
    from posteriori.training import export as exports
    from posteriori.training import session, trainer

    settings = configs.read_config(config)
    prior = settings if isinstance(settings, configs.TrainingConfig) else None
    if export is not None and prior is None:
        raise ValueError(
            "an autoencoder is no prior: leave --export out, and join it with a prior of its "
            "latents by posteriori.priors.Latent"
        )
    with resumable(lambda: session.session_kept(out)):
        trainer.train(
            settings, out, progress=not quiet and sys.stderr.isatty(), device=device, say=print
        )
    if export is not None and prior is not None:
        exports.export(prior, out, export)
        print(f"prior saved in {export}")


app.command(import_command, name="import")


@app.command
def report(folder: Path, /, *, out: Path | None = None, reference: Path | None = None) -> None:
    """Write one self-contained page for a run folder, or for a folder of runs.

    Parameters
    ----------
    folder:
        what ``solve`` or ``demo`` wrote, or ``sample(folder=)`` from Python.
    out:
        the page to write; index.html in that folder by default.
    reference:
        the true image, a picture or .npy, to compare samples with that were drawn without one; none
        by default.
    """
    from posteriori.cli.truth import read_truth
    from posteriori.report import page

    print(page(folder, out, None if reference is None else read_truth(reference, folder)))


for _command in (calibrate_command, doctor_command, run_command, tune_command):
    app.command(_command, name=_command.__name__.removesuffix("_command"))
app.command(env)
app.command(bench_app)


@app.command
def study(
    name: StudyName | None = None,
    /,
    *,
    quick: bool = False,
    out: Path = Path("studies"),
    list_: Annotated[bool, Parameter(name="--list")] = False,
    quiet: bool = False,
) -> None:
    """Answer a question of the field: data, figure and a page, with all that is needed to repeat
    it.

    Parameters
    ----------
    name:
        the study; see --list.
    quick:
        fewer cells, under a minute, to see how it works; never in the same files as a full run.
    out:
        folder for NAME.json, .csv, .png, .md and .html; cells that NAME.json holds already are not
        measured again.
    list_:
        print the name and the question of every study.
    quiet:
        no progress bar.
    """
    from posteriori.cli.study import listing, study_question

    if list_:
        print(listing())
        return
    study_question(name, out, quick, not quiet and sys.stderr.isatty())


@app.command(name="problem-file")
def problem_file(part: str | None = None, /) -> None:
    """Print every key of a problem file: values, default, unit and meaning, as Markdown.

    Parameters
    ----------
    part:
        only what is called so, such as operator, blur, noise or MMPS; all by default.
    """
    from posteriori.cli.problem_file import key_reference, named

    print(key_reference() if part is None else named(part), end="")


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print what makes a shell complete commands, options, files and names of methods, beds and
    studies.

    For bash, in ~/.bashrc: eval "$(posteriori completion bash)". For zsh: posteriori completion
    zsh > "${fpath[1]}/_posteriori". For fish: posteriori completion
    fish > ~/.config/fish/completions/posteriori.fish.

    Parameters
    ----------
    shell:
        for which shell.
    """
    print(app.generate_completion(prog_name="posteriori", shell=shell), end="")


def main(words: Sequence[str] | None = None) -> None:
    """The entry point: an expected error is one message on stderr and exit code 2; ``--debug``
    anywhere shows where it came from."""
    words = [*(sys.argv[1:] if words is None else words)]
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    with warnings.catch_warnings():
        warnings.showwarning = _said
        try:
            app([word for word in words if word != DEBUG], exit_on_error=False, print_error=False)
        except KeyboardInterrupt as error:
            print(f"posteriori: interrupted{_notes(error)}", file=sys.stderr)
            raise SystemExit(130) from None
        except (
            CycloptsError,
            ValueError,
            TypeError,
            OSError,
            ArithmeticError,
            RuntimeError,
            ImportError,
            MemoryError,
        ) as error:
            if DEBUG in words:
                raise
            where = f"{_in_own_code(error)}{_notes(error)}{_see(error, words)}"
            print(f"posteriori: {error or type(error).__name__}{where}", file=sys.stderr)
            raise SystemExit(2) from None


def _see(error: BaseException, words: Sequence[str]) -> str:
    """Where the options are explained, for a command that was not understood."""
    if not isinstance(error, CycloptsError):
        return ""
    path = error.command_chain or ()
    return f" `posteriori {' '.join([*path, '--help'])}` explains"


def _notes(error: BaseException) -> str:
    """What was added to an error on its way: what is kept, and how to go on."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def _in_own_code(error: BaseException) -> str:
    """Where in a module of the user's own an error came from that does not say so; empty when from
    nowhere there."""
    if "posteriori.problem_file.modules" not in sys.modules or isinstance(error, CycloptsError):
        return ""
    from posteriori.problem_file.modules import where_in_own_code

    place = where_in_own_code(error)
    return f" ({place}; {DEBUG} shows the way there)" if place and place not in str(error) else ""


def _said(message: Warning | str, *where: object, **more: object) -> None:
    """A warning as a sentence, without the line of source that it came from."""
    print(f"warning: {message}", file=sys.stderr)
