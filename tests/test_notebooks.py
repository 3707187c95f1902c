"""The committed notebooks: they compile, were run without errors, and their commands are ones.

Executing them takes minutes: `make notebooks` does.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from unicross.cli import app

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LARGEST = 300_000
"""Bytes of a notebook with its figures."""
MACHINE = re.compile(r"(?<![\w~.:/<-])/[A-Za-z][\w.-]*/|\x1b\[")
"""A path from the root of a file system, or a colour of a terminal."""


def name(path: Path) -> str:
    return path.stem


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def commands(path: Path) -> list[list[str]]:
    """The words of every `unicross` command: in cells for the shell, and in blocks and lines of the text."""
    shell = ["".join(cell["source"]) for cell in cells(path, "code") if cell["source"][0].startswith("%%")]
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    said = re.findall(r"^unicross .*$", "\n".join([*shell, text]), re.MULTILINE)
    said += re.findall(r"`(unicross [a-z]+ [^`]+)`", text)
    return [shlex.split(command.partition(" 2>")[0])[1:] for command in said]


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["does_it_help", "find_pictures"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_every_cell_was_run_in_order_and_none_failed_or_warned(path):
    run = cells(path, "code")
    assert [cell["execution_count"] for cell in run] == list(range(1, len(run) + 1))
    outputs = [output for cell in run for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_what_is_committed_is_small_and_tells_nothing_of_the_machine(path):
    text = path.read_text("utf-8")
    assert len(text) < LARGEST
    shown = re.sub(r'"image/png": "[^"]*"', "", text)
    assert MACHINE.findall(shown.replace("\\u001b", "\x1b")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_python_compiles(path):
    for cell in cells(path, "code"):
        source = "".join(cell["source"])
        if not source.startswith("%%"):
            compile(source, path.name, "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_the_command_line_accepts_its_commands(path):
    found = commands(path)
    assert len(found) >= 3
    for words in found:
        command = get_command(app)
        context = typer.Context(command)
        sub, arguments = command.resolve_command(context, words)[1:]
        sub.make_context(words[0], list(arguments), parent=context)  # raises for what it does not know
