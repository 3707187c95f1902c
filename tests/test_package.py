"""What the package says of itself: lower bounds that were installed, extras that messages name."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OTHERWISE_TESTED = {"torch", "ray"}
"""Whose oldest release cannot be installed beside the others on any machine."""


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def bounds():
    """The lower bound of every package that users may install, by its name; None where there is none."""
    lists = [PROJECT["dependencies"], *(lines for extra, lines in EXTRAS.items() if extra != "dev")]
    found = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?(?:>=([\d.]+))?", line) for lines in lists for line in lines]
    return {match[1]: match[2] for match in found if match and match[1] != "unicross"}


def release(version):
    return tuple(map(int, re.sub(r"(\.0)+$", "", version).split(".")))


def test_every_lower_bound_is_the_release_that_was_tested():
    lowest = {name: release(version) for name, version in pins("constraints-lowest.txt").items()}
    named = {name: version and release(version) for name, version in bounds().items()}
    assert named.keys() - OTHERWISE_TESTED == lowest.keys() - OTHERWISE_TESTED
    assert {name: named[name] for name in lowest.keys() - OTHERWISE_TESTED} == {
        name: lowest[name] for name in lowest.keys() - OTHERWISE_TESTED
    }


def test_all_is_all_that_a_user_may_want():
    (everything,) = EXTRAS["all"]
    named = set(re.fullmatch(r"unicross\[(.*)\]", everything)[1].split(","))
    assert named == EXTRAS.keys() - {"all", "dev"}


def test_messages_name_extras_that_there_are():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    named = {extra for text in texts for extra in re.findall(r"unicross\[(\w+)\]", text)}
    assert len(named) > 5
    assert named <= EXTRAS.keys()
