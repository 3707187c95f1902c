"""The documents: links lead somewhere, commands and recipes are ones, the reference is whole."""

import re
import shlex
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import unicross
from unicross.cli import app
from unicross.recipe import load_recipe

sys.path.append(str(Path(__file__).parent.parent / "docs"))

import reference

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHORT = ["README.md", "docs/start.md"]
LONGEST_SENTENCE = 35
"""Words of a sentence in README and the first page."""
COMMANDS = dict(reference.leaves(get_command(app)))
KEYS = {path + name for path, name, *_ in reference.recipe_keys()}
MADE = {path: cache(make) for path, make in reference.PAGES.items()}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def prose(text: str) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def text_of(target: Path) -> str:
    """A page that is committed, or one that the site makes."""
    made = target.relative_to(ROOT / "docs").as_posix() if target.is_relative_to(ROOT / "docs") else ""
    return MADE[made]() if made in MADE else target.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as mkdocs and GitHub name them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        made = (
            goal.is_relative_to(ROOT / "docs")
            and goal.relative_to(ROOT / "docs").as_posix() in reference.PAGES
        )
        assert made or goal.exists(), target
        if name(page).startswith("docs/"):
            assert goal.is_relative_to(ROOT / "docs"), f"{target}: the site does not hold it"
        if anchor:
            assert anchor in anchors(text_of(goal)), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_of_the_project_that_is_named_is_there(page):
    named = re.findall(
        r"`?((?:tests|benchmarks|experiments|docs|recipes)/[\w/]+\.\w+)", page.read_text("utf-8")
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_site_has_every_page():
    class Loader(yaml.SafeLoader):
        """Without the tags of mkdocs."""

    def leaves(node):
        return (
            [node]
            if isinstance(node, str)
            else [x for n in (node.values() if isinstance(node, dict) else node) for x in leaves(n)]
        )

    nav = leaves(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    committed = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*committed, *reference.PAGES])


def said_commands(page: Path) -> list[list[str]]:
    """The words of every `unicross` command in a page's shell blocks."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    starts = [(line, line.find("unicross ")) for line in lines if "..." not in line]
    others = re.compile(r"\bpip\b|docker ")  # where it is a package or an image
    return [
        shlex.split(line[at:], comments=True)[1:]
        for line, at in starts
        if at >= 0 and not others.search(line)
    ]


def is_key(key: str) -> bool:
    """Whether a recipe has the key: of all stages, of one, or a name under one that takes any."""
    key = re.sub(r"^stages\.\d+", "stages.N", key)
    shared = f"stages.N.{key}"
    return (
        key in KEYS or shared in KEYS or key.rpartition(".")[0] in ("forgetting", "model.image", "model.text")
    )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_the_documents_has_the_options_and_keys_that_it_is_given(page):
    for words in said_commands(page):
        command = COMMANDS.get(tuple(words[:2])) or COMMANDS.get(tuple(words[:1]))
        assert command is not None, words
        options = {option for parameter in command.params for option in parameter.opts}
        given = [word for word in words if re.match(r"--?[a-z]", word)]
        assert [option for option in given if option not in options] == [], words
        keys = [match[1] for word in words if (match := re.match(r"([a-z_]+(?:\.\w+)*)=", word))]
        if words[0] != "search":
            assert [key for key in keys if not is_key(key)] == [], words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_recipe_in_the_documents_is_one(page, tmp_path):
    for block in blocks(page, "yaml"):
        (tmp_path / "recipe.yaml").write_text(block)
        assert load_recipe(tmp_path / "recipe.yaml", ["data.root=photos"]).stages


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_in_the_documents_compiles_and_what_it_imports_is_there(page):
    for block in blocks(page, "python"):
        compile(block, name(page), "exec")
        for module, names in re.findall(r"^from (unicross[\w.]*) import ([\w, ]+)", block, re.MULTILINE):
            assert [n for n in names.split(", ") if not hasattr(import_module(module), n)] == []


def sentences(text: str) -> list[str]:
    """Of prose, lists and cells of tables."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", prose(text))
    parts = re.split(r"\n\s*\n|\n(?=[*#>|-]|\d\.)|\|", text)
    return [s for part in parts for s in re.split(r"(?<=[.!?:])\s+", " ".join(part.split())) if s]


@pytest.mark.parametrize("page", SHORT)
def test_no_sentence_of_the_first_pages_is_long(page):
    long = [s for s in sentences((ROOT / page).read_text("utf-8")) if len(s.split()) > LONGEST_SENTENCE]
    assert long == []


def test_the_readme_is_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 600


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_and_option_stands_in_the_reference(names):
    page = MADE["reference/commands.md"]()
    section = page.partition(f"## unicross {' '.join(names)}\n")[2].partition("\n## ")[0]
    for parameter in COMMANDS[names].params:
        label = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
        assert re.search(rf"`{label}`[^|]*\| \S", section), label


def test_every_key_of_a_recipe_has_a_sentence_in_the_reference():
    assert [path + name for path, name, *_, meaning in reference.recipe_keys() if not meaning] == []
    page = MADE["reference/recipes.md"]()
    assert [name for _, name, *_ in reference.recipe_keys() if f"| `{name}` |" not in page] == []


def test_every_public_name_stands_in_the_reference():
    page = MADE["reference/python.md"]()
    assert [name for name in unicross.__all__ if f"### {name}\n" not in page] == []
    assert "### info_nce\n" in page
