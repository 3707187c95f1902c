"""The surface that users see: public names, and commands with their help."""

import importlib
import inspect
from pathlib import Path

import pytest
from typer.main import get_command

import unicross
from unicross.cli import app

DOCS = Path(__file__).parent.parent / "docs"

COMMANDS = {
    (name, *sub): command
    for name, group in get_command(app).commands.items()
    for sub, command in (
        [((inner,), inner_command) for inner, inner_command in group.commands.items()]
        if hasattr(group, "commands")
        else [((), group)]
    )
}


def test_public_names():
    """Adding one is a decision; taking one away breaks somebody."""
    assert unicross.__all__ == [
        "CheckpointError",
        "DataError",
        "Query",
        "Recipe",
        "RecipeError",
        "Searcher",
        "StoreError",
        "TrainingError",
        "TwoTower",
        "UnicrossError",
        "evaluate",
        "load_items",
        "load_recipe",
        "open_store",
        "train",
    ]


@pytest.mark.parametrize("name", unicross.__all__)
def test_every_public_name_resolves_and_is_explained(name):
    value = getattr(unicross, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", [name for name in unicross.__all__ if name.endswith("Error")])
def test_every_error_is_one_of_ours(name):
    assert issubclass(getattr(unicross, name), unicross.UnicrossError)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'unicross' has no attribute 'nothing'"):
        unicross.nothing  # noqa: B018


def test_names_are_those_of_their_home():
    for name, home in unicross._HOME.items():
        assert name in unicross.__all__
        assert getattr(unicross, name) is getattr(importlib.import_module(home), name)


def test_the_commands():
    assert {" ".join(names) for names in COMMANDS} >= {
        "train",
        "evaluate",
        "compare",
        "index",
        "embed",
        "search",
        "serve",
        "report",
        "demo",
    }


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_help_for_itself_and_all_it_takes(names):
    command = COMMANDS[names]
    assert command.help
    assert len(command.get_short_help_str(200)) > 15
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(names)}: {parameter.name} has no help"


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_stands_in_the_docs(names):
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert f"`unicross {' '.join(names)}" in text
