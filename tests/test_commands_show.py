"""Progress: bars on a terminal, plain lines now and then elsewhere, nothing where nobody listens."""

import io
import re
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from unicross import cli
from unicross.commands.show import Bars, Listening
from unicross.errors import UnicrossError
from unicross.progress import progress_shown_by, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by three seconds whenever it is looked at."""
    now = [0.0]

    def monotonic():
        now[0] += 3
        return now[0]

    monkeypatch.setattr(time, "monotonic", monotonic)


def test_what_is_tracked_is_told_to_who_listens_and_comes_through_whole():
    assert list(track("counting", "abc", 3)) == [*"abc"]
    told = []
    with progress_shown_by(lambda *what: told.append(what)):
        assert list(track("counting", "abc", 3)) == [*"abc"]
    assert told == [("counting", 0, 3), ("counting", 1, 3), ("counting", 2, 3), ("counting", 3, 3)]
    list(track("counting", "abc", 3))
    assert len(told) == 4


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("clock")
def test_a_pipe_gets_plain_lines_with_the_time_left_now_and_then(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks and CI do; NO_COLOR goes before it
    monkeypatch.setenv("NO_COLOR", "1")
    said = io.StringIO()
    with Bars(Console(file=said, width=200)) as bars:
        for _ in track("embedding", range(10), 10):
            pass
        bars.show("quick", 0, 1)
        bars.show("quick", 1, 1)
    assert said.getvalue().splitlines() == [
        "embedding: 4 of 10, 0:00:18 left",
        "embedding: 8 of 10, 0:00:06 left",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_time_left_leaves_out_the_first_parts_which_warm_up(monkeypatch, terminal):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said = Terminal() if terminal else io.StringIO()
    told = []
    with Bars(Console(file=said, width=200, force_terminal=terminal)) as bars:
        for done, seconds in enumerate([0, 160, 30, 10, 10, 10, 10, 10, 10]):
            now[0] += seconds
            bars.show("training", done, 368)
            bars._progress.refresh()
            told.append(re.findall(r"[\d:]+(?= left)", said.getvalue())[-1:])
    assert told == [[]] * 4 + [[str(timedelta(seconds=10 * (368 - done)))] for done in range(4, 9)]


def test_the_first_batch_told_of_part_by_part_says_nothing_of_the_time_left():
    said = Terminal()
    with Bars(Console(file=said, width=200, force_terminal=True)) as bars:
        for done in range(65):
            bars.show("embedding", done, 1000)
        bars._progress.refresh()
    assert "64/1000" in said.getvalue()
    assert " left" not in said.getvalue()


def test_a_run_that_goes_on_counts_the_parts_from_there(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said = io.StringIO()
    with Bars(Console(file=said, width=200)) as bars:
        for done in range(100, 106):
            bars.show("training", done, 200)
            now[0] += 10
    assert said.getvalue().splitlines() == [
        "training: 101 of 200",
        "training: 102 of 200",
        "training: 103 of 200",
        "training: 104 of 200, 0:16:00 left",
        "training: 105 of 200, 0:15:50 left",
    ]


def test_a_terminal_gets_a_bar_that_goes_and_no_colour_where_none_is_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    said = Terminal()
    console = Console(file=said, width=100, force_terminal=True)
    with Bars(console) as bars:
        bars.show("embedding", 3, 10)
        bars._progress.refresh()
    assert "embedding" in said.getvalue()
    assert "3/10" in said.getvalue()
    assert "\x1b[3" not in said.getvalue()
    assert said.getvalue().endswith(("\x1b[2K", "\x1b[?25h"))  # the bar is wiped away


def test_a_round_tells_how_many_pairs_it_left_out():
    said = io.StringIO()
    with Listening(Console(file=said, width=200)) as listening:
        listening({"kind": "round", "suspects": 3, "seconds": 0.1})
    assert said.getvalue() == "  3 pairs left out that look wrong\n"


@pytest.mark.parametrize(
    ("command", "work"),
    [
        ("store copy one two", "unicross.store.copy.copy"),
        ("store rebuild one two", "unicross.store.copy.rebuild"),
        ("report one", "unicross.report.write_report"),
        ("export one two", "unicross.export.export"),
        ("data one", "unicross.data.load.survey"),
        ("data one --suspects", "unicross.data.load.read_splits"),
    ],
)
def test_commands_show_the_long_work_under_them(command, work, monkeypatch):
    def works(*_, **__):
        list(track("working", "abc", 3))
        raise UnicrossError("that will do")

    told = []
    monkeypatch.setattr(Bars, "show", lambda _, *what: told.append(what))
    monkeypatch.setattr("unicross.store.open_store", lambda *_, **__: SimpleNamespace(info=None))
    monkeypatch.setattr("unicross.store.archive.EmbeddingArchive", lambda _: SimpleNamespace(info=None))
    monkeypatch.setattr("unicross.model.TwoTower.load", lambda *_: None)
    monkeypatch.setattr("unicross.model_folder.has_recipe", lambda _: True)
    monkeypatch.setattr("unicross.model_folder.recipe_of", lambda _: None)
    monkeypatch.setattr("unicross.model_folder.located", lambda *_: SimpleNamespace(data=None))
    monkeypatch.setattr(work, works)
    result = CliRunner().invoke(cli.app, command.split())
    assert str(result.exception) == "that will do"
    assert told[-1] == ("working", 3, 3)
