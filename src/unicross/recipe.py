"""Recipes as YAML: found by name, read, laid over their base, overridden, checked, and written.

What a recipe may say is in `config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from unicross.config import DataConfig, Recipe
from unicross.errors import RecipeError
from unicross.reading import read_text

MANDATORY = "???"
"""A value that the recipe leaves to the user."""

BASE = "base"
"""The key that names the recipe over which this one is laid: mappings key by key, lists as a whole."""

SHIPPED = Path(__file__).parent / "recipes"

STAGE_DEFAULTS = ("losses", "views", "batches", "optim")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own rule would keep the last, and aliases, with
    which a small file can explode: `base` is the way to share.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*NAME) are not read: write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def recipe_path(name: Path | str) -> Path:
    """The file of a recipe: a path as it is, or the name of a shipped one (`clip`). Raises RecipeError."""
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if str(name) not in shipped:
        raise RecipeError(f"recipe not found: {name}. Give a file, or one of {', '.join(shipped)}")
    return shipped[str(name)]


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and lay `key.path=value` overrides over it (`stages.0.epochs=2` works too).

    Raises RecipeError for an unreadable file, an unknown key, a wrong value, or a value left at `???`.
    """
    file = recipe_path(path)
    raw = _read(file)
    for text in overrides:
        _override(raw, text)
        _check_reaches(raw, text)
    shipped = file.parent == SHIPPED
    return make_recipe(raw, where=file.stem if shipped else str(file), overrides=overrides, sound=shipped)


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe file as plain data, laid over its `base` if it has one. `above`: the files that lead here."""
    try:
        raw = yaml.load(read_text(path), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not a readable YAML file: {_one_line(error)}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with model, data and stages")
    base = raw.pop(BASE, None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise RecipeError(f"{path}: {BASE} names a recipe or a file, got {base!r}")
    beside = path.parent / base
    base_path = recipe_path(beside if beside.is_file() else base)
    if base_path.resolve() in [file.resolve() for file in (path, *above)]:
        raise RecipeError(f"{path}: its {BASE} {base} leads back to itself: name another recipe")
    merged: dict[str, Any] = _merge(_read(base_path, (path, *above)), raw)
    return merged


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A checked recipe with other values: `["data.root=photos"]`. Raises RecipeError."""
    raw = recipe.model_dump(mode="json")
    for text in overrides:
        _override(raw, text)
    return make_recipe(raw, overrides=overrides, sound=True)


def data_config(overrides: Sequence[str]) -> DataConfig:
    """Data that no recipe names, by overrides: `["data.root=photos"]`. All items where no split is said.

    Raises RecipeError.
    """
    raw: dict[str, Any] = {"data": {"split": {"train": None, "val": None}}}
    for text in overrides:
        _override(raw, text)
    if "root" not in raw["data"]:
        raise RecipeError("an untrained model has no data of its own: say which with data.root=...")
    try:
        return DataConfig.model_validate(raw["data"])
    except ValidationError as error:
        raise RecipeError(f"data: {_explain(error)}") from None


def make_recipe(
    raw: Mapping[str, Any], *, where: str = "recipe", overrides: Sequence[str] = (), sound: bool = False
) -> Recipe:
    """Check plain data and make a recipe of it.

    Raises RecipeError, which names the `overrides` in `raw` that are wrong, else the source, `where`.
    `sound`: without the overrides nothing was wrong.
    """
    missing = [".".join(keys) for keys, value in _leaves(raw) if value == MANDATORY]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise RecipeError(
            f"{where}: values missing: {', '.join(missing)}. Give them on the command line: {given}"
        )
    raw = dict(raw)
    defaults = {name: raw.pop(name) for name in STAGE_DEFAULTS if name in raw}
    if isinstance(raw.get("stages"), list | tuple):
        raw["stages"] = [_merge(defaults, s) if isinstance(s, Mapping) else s for s in raw["stages"]]
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        if wrong := _wrong_overrides(error, overrides, sound):
            where = f"override {', '.join(map(repr, wrong))}"
        raise RecipeError(f"{where}: {_explain(error)}") from None


def _wrong_overrides(error: ValidationError, overrides: Sequence[str], sound: bool) -> list[str]:
    """The overrides that an error is about: of its place or of what holds that, and, in what was `sound`, of
    what lies in it."""
    places = [[str(key) for key in problem["loc"]] for problem in error.errors()]
    places += [place[2:] for place in places if place[:1] == ["stages"] and place[2:]]  # defaults of stages
    wrong = []
    for text in overrides:
        keys = text.partition("=")[0].split(".")
        at = any(
            place[: len(keys)] == keys or (sound and keys[: len(place)] == place != []) for place in places
        )
        if at:
            wrong.append(text)
    return wrong


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every value written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differences(before: Recipe, after: Recipe) -> list[str]:
    """A sentence for each value that differs: `train.batch_size was 64, is 128`."""
    old, new = (
        {".".join(keys): v for keys, v in _leaves(r.model_dump(mode="json"))} for r in (before, after)
    )
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed]


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}
    return over


def _leaves(node: Any, keys: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(node, Mapping):
        return [leaf for key, value in node.items() for leaf in _leaves(value, (*keys, str(key)))]
    if isinstance(node, list):
        return [leaf for i, value in enumerate(node) for leaf in _leaves(value, (*keys, str(i)))]
    return [(keys, node)]


def _override(raw: dict[str, Any], text: str) -> None:
    key, separator, value_text = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {text!r}: write it as key.path=value, for instance train.batch_size=64")
    try:
        value = yaml.load(value_text, _Loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: 2024-99-99 looks like a date
        raise RecipeError(f"override {text!r}: the value is not YAML: {_one_line(error)}") from error
    if isinstance(value, dict) and not value_text.lstrip().startswith("{"):
        value = value_text  # "query: " of model.text_prefix is words, not a mapping
    *parents, last = key.split(".")
    node: Any = raw
    for depth, part in enumerate(parents):
        here = ".".join(parents[: depth + 1])
        if isinstance(node, list):
            node = node[_index(node, part, text)]
        elif part.isdigit():
            raise RecipeError(f"override {text!r}: the recipe has no list at {'.'.join(parents[:depth])}")
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise RecipeError(f"override {text!r}: {here} is a single value and has no keys of its own")
    if isinstance(node, list):
        node[_index(node, last, text)] = value
    else:
        node[last] = value


def _check_reaches(raw: dict[str, Any], text: str) -> None:
    """Raise RecipeError for a default where a stage has a value of its own: it would change nothing there."""
    *parents, last = text.partition("=")[0].split(".")
    if not parents or parents[0] not in STAGE_DEFAULTS or not isinstance(raw.get("stages"), list):
        return
    for number, stage in enumerate(raw["stages"]):
        node = stage
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            key = ".".join([*parents, last])
            raise RecipeError(
                f"override {text!r}: stage {stage.get('name', number)!r} has its own {key}: "
                f"write stages.{number}.{key}=..."
            )


def _index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(
            f"override {text!r}: {part!r} is not a position in a list of {len(node)} (0 is the first)"
        )
    return int(part)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _keys() -> set[str]:
    """All keys that a recipe may hold, at any depth."""
    parts = Recipe.model_json_schema()["$defs"].values()
    return {*Recipe.model_fields, *(key for part in parts for key in part.get("properties", ()))}


def _explain(error: ValidationError) -> str:
    parts = []
    problems = error.errors()
    for problem in problems:
        loc = problem["loc"]
        if any(other["loc"][: len(loc)] == loc and len(other["loc"]) > len(loc) for other in problems):
            continue  # it follows from what is wrong inside
        where = ".".join(str(key) for key in loc) or "recipe"
        match problem["type"]:
            case "extra_forbidden":
                alike = difflib.get_close_matches(str(loc[-1]), _keys(), n=1)
                parts.append(f"unknown key {where}" + (f": {alike[0]}?" if alike else ""))
            case "missing":
                parts.append(f"missing key {where}")
            case "value_error":
                parts.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
            case _:
                parts.append(f"{where}: {problem['msg']} (got {problem['input']!r})")
    return "; ".join(parts)
