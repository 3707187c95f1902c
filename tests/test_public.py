"""The surface that users see: public names, and commands with their help."""

import inspect
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import unicross
from unicross import errors
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


@pytest.mark.parametrize("name", unicross.__all__)
def test_every_public_name_resolves_and_is_explained(name):
    value = getattr(unicross, name)
    assert value.__name__ == name
    assert callable(value)
    assert inspect.getdoc(value)


def test_a_star_import_gives_every_public_name():
    names = {}
    exec("from unicross import *", names)
    assert {name for name in names if not name.startswith("_")} == set(unicross.__all__)


def test_what_the_documents_import_is_public():
    texts = [path.read_text(encoding="utf-8") for path in (DOCS.parent / "README.md", *DOCS.rglob("*.md"))]
    lines = [names for text in texts for names in re.findall(r"from unicross import ([\w, ]+)", text)]
    imported = {name for names in lines for name in names.replace(" ", "").split(",")}
    assert "TwoTower" in imported
    assert imported <= set(unicross.__all__)


def test_whoever_catches_the_public_error_catches_them_all():
    ours = [value for value in vars(errors).values() if isinstance(value, type)]
    public = [getattr(unicross, name) for name in unicross.__all__ if name.endswith("Error")]
    assert len(public) > 1
    assert all(issubclass(value, unicross.UnicrossError) for value in (*ours, *public))


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'unicross' has no attribute 'nothing'"):
        unicross.nothing  # noqa: B018


SURFACE = """
compare RECIPES --seeds --match --out --jobs -j --device --json
data ROOT OVERRIDES --format --check --suspects --model --html --write --json
demo --out --items --seed
embed CHECKPOINT FOLDER --out OVERRIDES --captions --engine --workers --gpus --device --json
evaluate CHECKPOINT OVERRIDES --folds --batch-size --device --json
export MODEL OUT OVERRIDES --to --int8 --push
index CHECKPOINT FOLDER --store OVERRIDES --captions --prune --moved-from --dim --archive --thumbnails --watch --every --serve --device --json
report FOLDER --out
search STORE WORDS --image --like --minus --weight --mode --fold --near --by --texts --where -k --offset --min-score --model --device --json --sheet --open
serve STORE --host --port --api-key --keys --allow-host --root-path --max-upload-mb --max-megapixels --timeout --model --device
store copy SOURCE TARGET
store forget STORE ROOT
store info STORE --json
store rebuild ARCHIVE TARGET
train RECIPE OVERRIDES --out --resume --device
"""  # noqa: E501


def test_the_command_line_is_what_scripts_rely_on():
    """Adding to it is a decision; taking away, renaming or turning arguments around breaks somebody."""
    found = [
        " ".join(
            [
                *names,
                *(" ".join(p.opts) if p.param_type_name == "option" else p.name.upper() for p in c.params),
            ]
        )
        for names, c in COMMANDS.items()
    ]
    assert sorted(found) == sorted(SURFACE.strip().splitlines())


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_help_for_itself_and_all_it_takes(names):
    command = COMMANDS[names]
    assert command.help
    assert len(command.get_short_help_str(200)) > 15
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(names)}: {parameter.name} has no help"


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_it_would_take(names):
    said, _, example = COMMANDS[names].epilog.partition(": ")
    assert said == "For instance"
    words = shlex.split(example)
    assert words[: len(names) + 1] == ["unicross", *names]
    COMMANDS[names].make_context("unicross", words[len(names) + 1 :])  # raises for what it does not take


def test_the_shell_completes_recipes_and_run_folders(tmp_path, monkeypatch):
    for folder in ("runs/photos", "runs/compare/clip-s0", "runs/not-one"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("runs/photos", "runs/compare/clip-s0"):
        (tmp_path / folder / "recipe.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert completed("train", "iu") == ["iucc"]
    assert completed("evaluate", "") == ["runs/compare/clip-s0", "runs/photos"]
    assert completed("train", "--resume", "runs/p") == ["runs/photos"]


def completed(*words):
    """What bash is told to offer for the last of these words."""
    line = " ".join(["unicross", *words])
    asked = {"_UNICROSS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(app, prog_name="unicross", env=asked)
    return done.output.split()
