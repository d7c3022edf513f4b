"""Help: every option is explained, lists are read as people type them, shells complete what there
is."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing

import pytest
from console import call
from rich.console import Console

from posteriori.cli import app, benches, lists
from posteriori.experiments import photographs
from posteriori.experiments.boards import BOARDS
from posteriori.experiments.studies import STUDIES
from posteriori.methods import ALL

UNITS = {"checkpoint_seconds": "second", "limit": "second", "side": "pixel"}


def commands(at=app, path=()):
    """Every command that does something, by its path."""
    for name in at:
        if name.startswith("-"):
            continue
        below = at[name]
        if below.default_command is None:
            yield from commands(below, (*path, name))
        else:
            yield (*path, name), below


COMMANDS = dict(commands())


def options():
    return [
        (" ".join(path), argument)
        for path, command in COMMANDS.items()
        for argument in command.assemble_argument_collection(parse_docstring=True)
    ]


def test_the_sweep_sees_every_command():
    assert {
        ("solve",),
        ("bench", "exact"),
        ("bench", "images"),
        ("study",),
        ("train",),
        ("completion",),
    } <= COMMANDS.keys()
    assert len(options()) > 40


@pytest.mark.parametrize(
    ("command", "argument"),
    options(),
    ids=lambda part: part if isinstance(part, str) else part.name,
)
def test_every_option_is_explained_with_its_default_and_unit(command, argument):
    text = argument.parameter.help or ""
    assert len(text) > 3, f"{command} {argument.name}: no help"
    assert text[0].islower(), f"{command} {argument.name}: {text!r}"
    assert text.endswith((".", ")")), f"{command} {argument.name}: {text!r} is cut off"
    shown = argument.parameter.show_default is not False and argument.field_info.default is not None
    assert argument.required or shown or re.search("default|see --list", text), (
        f"{command} {argument.name}: which default? {text!r}"
    )
    assert UNITS.get(argument.field_info.name, "") in text, (
        f"{command} {argument.name}: which unit? {text!r}"
    )


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_that_is_shown_holds_these_texts(monkeypatch, capsys, path):
    # A console of its own: the one that the commands keep takes width and colours from the
    # surroundings when it is first used.
    monkeypatch.setattr(app, "console", Console(width=400, height=50, force_terminal=False))
    assert call(monkeypatch, *path, "--help") == 0
    shown = capsys.readouterr().out
    for argument in COMMANDS[path].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help.replace("``", "")[:60] in shown
    assert "--no-" not in shown
    assert "--empty-" not in shown


@pytest.mark.parametrize(
    "typed",
    [
        ["DPS,MMPS"],
        ["DPS", "MMPS"],
        ["DPS,", "MMPS"],
        ["DPS ,MMPS"],
        ["DPS", "--methods", "MMPS"],
        ["DPS,MMPS,"],
    ],
)
def test_lists_are_read_as_people_type_them(monkeypatch, typed):
    from posteriori.cli import bench_images

    seen = []
    monkeypatch.setattr(
        bench_images, "bench_photographs", lambda selection, *rest: seen.append(selection.methods)
    )
    assert call(monkeypatch, "bench", "images", "--methods", *typed, "--quiet") == 0
    assert seen == [("DPS", "MMPS")]


def test_numbers_are_lists_and_ranges_and_cells_keep_their_commas(monkeypatch, capsys):
    from posteriori.cli import bench

    seen = []
    monkeypatch.setattr(
        bench,
        "bench_exact",
        lambda selection, *rest: seen.append({(c.cell, c.steps) for c in selection.plan()}),
    )
    words = ["bench", "exact", "--bed", "gmm25", "--methods", "DPS", "--seeds", "1", "--quiet"]
    for cells, steps in ((["8,1,80,2"], ["5-6", "20"]), (["8,1", "80,2"], ["5,6,20"])):
        assert call(monkeypatch, *words, "--cells", *cells, "--steps", *steps) == 0
        assert seen.pop() == {(cell, count) for cell in ("8,1", "80,2") for count in (5, 6, 20)}
    for wrong in ("5-", "x", "9-3", "1-100000", "2.5", "-3"):
        assert call(monkeypatch, *words, f"--steps={wrong}") == 2
        assert wrong in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "exact", "--methods", "MMSP"], "did you mean 'MMPS'?"),
        (["bench", "exact", "--bed", "gmm"], "did you mean 'gmm25'?"),
        (["bench", "images", "--images", "chelsa"], "did you mean 'chelsea'?"),
        (["bench", "images", "--methods", "own.Mine"], "my_file.py:MyClass"),
        (["study", "gudance"], "did you mean 'guidance-strength'?"),
    ],
)
def test_a_word_that_is_not_known_meets_the_nearest(monkeypatch, capsys, words, said):
    assert call(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


def test_the_words_that_shells_complete_are_those_that_there_are():
    def of(hint):
        return typing.get_args(typing.get_args(typing.get_args(typing.get_args(hint)[0])[0])[0])

    assert lists.method_names() == tuple(ALL)
    assert set(lists.study_names()) == set(STUDIES)
    assert of(benches.Beds) == tuple(BOARDS)
    assert set(of(benches.Schedules)) <= {
        schedule for board in BOARDS.values() for schedule in board.schedules
    }
    assert of(benches.Photographs) == tuple(photographs.PHOTOGRAPHS)
    assert of(benches.Problems) == tuple(photographs.PROBLEMS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_knows_commands_options_and_names(monkeypatch, capsys, shell):
    assert call(monkeypatch, "completion", shell) == 0
    script = capsys.readouterr().out
    for word in (
        "solve",
        "study",
        "checkpoint-seconds",
        "MomentSMC",
        "mixture256",
        "guidance-strength",
        "astronaut",
    ):
        assert word in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "completion", "bash") == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "problem.yaml").touch()
    for typed, expected in (
        (["so"], "solve"),
        (["bench", "e"], "exact"),
        (["solve", "--res"], "--resume"),
        (["solve", "prob"], "problem.yaml"),
        (["bench", "exact", "--methods", "Mom"], "MomentSMC"),
        (["study", "gui"], "guidance-strength"),
    ):
        line = " ".join(f"'{word}'" for word in ["posteriori", *typed])
        tail = (
            f"COMP_WORDS=({line}); COMP_CWORD={len(typed)}; "
            f"_posteriori posteriori '{typed[-1]}' x; echo ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(
            ["bash", "-c", f"source {script}; {tail}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        )
        assert done.stdout.split() == [expected], typed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["solve"], "PROBLEM requires an argument. `posteriori solve --help` explains"),
        (["solve", "p.yaml"], "--out requires an argument. `posteriori solve --help` explains"),
        (["slove", "p.yaml"], 'Did you mean "solve"?'),
        (
            ["bench", "exact", "--seds", "2"],
            "Did you mean --seeds? `posteriori bench exact --help` explains",
        ),
        (["bench", "exact", "--seeds", "0"], "--seeds: expected a number >= 1, got 0"),
        (["bench", "exact", "--steps", "0"], "--steps: expected a number >= 1, got 0"),
        (
            ["solve", "p.yaml", "--out", "run", "--checkpoint-seconds", "-1"],
            "--checkpoint-seconds: expected a number >= 0, got -1",
        ),
    ],
)
def test_a_command_that_is_not_understood_says_what_lacks_and_where_it_is_explained(
    monkeypatch, capsys, words, said
):
    assert call(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


def test_help_is_also_a_word(monkeypatch, capsys):
    assert call(monkeypatch, "help", "bench", "exact") == 0
    assert "--sample-seed" in capsys.readouterr().out
