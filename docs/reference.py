"""Pages that are made when the site is built: the reference, from the code, and the notebooks.

mkdocs calls `on_config` and `on_files`, as `hooks` in mkdocs.yml says. Nothing made here is committed.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

import unicross
from unicross.cli import app
from unicross.config import Recipe

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
MODULES = ("unicross.losses", "unicross.metrics")
"""Modules of pure functions, public as a whole besides what `import unicross` gives."""


def on_config(config: Any) -> None:
    config.copyright = f"unicross {unicross.__version__}"


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def leaves(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*names, name))
    if not hasattr(command, "commands"):
        yield names, command


def commands_page() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    parts = [textwrap.dedent(COMMANDS_HEAD).strip()]
    for names, command in leaves(get_command(app)):
        is_option = [parameter.param_type_name == "option" for parameter in command.params]
        taken = [p.name.upper() for p, option in zip(command.params, is_option, strict=True) if not option]
        rows = [
            (
                " ".join(f"`{name}`" for name in (p.opts if option else [p.name.upper()])),
                p.help or "",
                "required" if p.required else _default(p.default),
            )
            for p, option in zip(command.params, is_option, strict=True)
        ]
        title = " ".join(("unicross", *names))
        parts += [f"## {title}", f"`{' '.join((title, *taken, '[OPTIONS]'))}`", _prose(command.help or "")]
        parts.append(_table(("argument or option", "what it is", "by default"), rows))
    return "\n\n".join(parts) + "\n"


COMMANDS_HEAD = """
    # Commands

    This page is made from the code; every command prints the same with `--help`.

    * Wherever a command takes a model, it takes a run, a checkpoint or a
      [pretrained pair](../guides/pairs.md), as a folder or a name on the Hugging Face hub.
    * Commands with `--json` print for programs. A run's figures are in `RUN/summary.json`.
    * Wrong input is said in a sentence on standard error, with exit code 1. Wrong usage is exit code 2. A
      signal that training stopped for is 128 and its number, so Ctrl-C is 130; for `serve` it is 0.
    """


def recipe_keys(
    model: type[BaseModel] = Recipe, path: str = "", given: BaseModel | None = None
) -> Iterator[tuple[str, str, str, str, str]]:
    """Every key of a recipe: the mapping that it stands in, its name, values, default and sentence.

    `given`: the mapping that the key above has by default, with values of its own.
    """
    schema, said = model.model_json_schema(), attribute_docs(model)
    for name, field in model.model_fields.items():
        value = getattr(given, name, None) or field.get_default(call_default_factory=True)
        inner = next(_models(field.annotation), None)
        values = _values(schema["properties"][name])
        default = "required" if field.is_required() else "" if inner else _default(value)
        yield path, name, values, default, NONE.sub("`null`", said.get(name, ""))
        if inner:
            below = value if isinstance(value, BaseModel) else None
            yield from recipe_keys(inner, f"{path}{name}.N." if name == "stages" else f"{path}{name}.", below)


NONE = re.compile(r"\bNone\b")


def recipes_page() -> str:
    """Every key of a recipe with its values and its default, a table for each mapping."""
    by_mapping: dict[str, list[tuple[str, ...]]] = {}
    for path, name, *rest in recipe_keys():
        by_mapping.setdefault(path, []).append((f"`{name}`", *rest))
    parts = [textwrap.dedent(RECIPES_HEAD).strip()]
    for path, rows in by_mapping.items():
        parts += [
            f"## {path.rstrip('.') or 'The recipe'}",
            _table(("key", "values", "default", "meaning"), rows),
        ]
    return "\n\n".join(parts) + "\n"


RECIPES_HEAD = """
    # Recipe keys

    This page is made from the code. [Recipes](../guides/recipes.md) explains how a recipe is written. `null`
    is a value of its own; where a key may be `null`, its meaning says what that does. Two more keys stand at
    the top of a file: `base` names the recipe that this one is laid over, and `optim`, `views`, `batches` and
    `losses` there are the defaults of all stages. `N` is the position of a stage, counted from 0.
    """


def python_page() -> str:
    """What `import unicross` gives and the pure functions, from signatures and docstrings."""
    parts = ["# Python", "This page is made from the code.", "## unicross"]
    for name in unicross.__all__:
        parts += _described(getattr(unicross, name), name, "###")
    for module in map(import_module, MODULES):
        parts += [f"## {module.__name__}", _prose(inspect.getdoc(module) or "")]
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_":
                parts += _described(value, name, "###")
    return "\n\n".join(parts) + "\n"


def _described(value: Any, name: str, mark: str) -> list[str]:
    is_class = isinstance(value, type)
    if is_class and issubclass(value, BaseException):
        return [f"{mark} {name}", _prose(inspect.getdoc(value) or "")]
    signature = name if is_class and issubclass(value, BaseModel) else f"{name}{_signature(value)}"
    parts = [f"{mark} {name}", f"```python\n{signature}\n```", _prose(inspect.getdoc(value) or "")]
    if is_class and not issubclass(value, BaseModel):
        parts += [f"* `{key}`: {text}" for key, text in attribute_docs(value).items()]
        for key, raw in vars(value).items():
            member = getattr(value, key, None)
            if key[0] != "_" and (inspect.isroutine(member) or isinstance(raw, property)) and member.__doc__:
                parts += _member(name, key, raw, member, mark)
    return parts


def _member(owner: str, key: str, raw: Any, member: Any, mark: str) -> list[str]:
    title = [f"{mark}# {owner}.{key}"]
    code = [] if isinstance(raw, property) else [f"```python\n{key}{_signature(member)}\n```"]
    return [*title, *code, _prose(inspect.getdoc(member) or "")]


def _signature(value: Any) -> str:
    """Arguments and result; long ones over several lines, annotations without their quotes."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))
    if len(text) < 90:
        return text
    parameters = [
        re.sub(r"(: )'([^']*)'", r"\1\2", str(p)) for p in inspect.signature(value).parameters.values()
    ]
    return "(\n    " + ",\n    ".join(parameters) + "\n)" + text[text.rindex(")") + 1 :]


def attribute_docs(owner: type) -> dict[str, str]:
    """The string that follows each attribute of a class in its source, on one line."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except OSError:
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        first.target.id: " ".join(second.value.value.split())
        for first, second in pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name)
        if isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)
    }


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


def _values(schema: dict[str, Any]) -> str:
    match schema:
        case {"anyOf": several}:
            return " or ".join(map(_values, several))
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "prefixItems": items}:
            return f"[{', '.join(map(_values, items))}]"
        case {"type": "array", "items": items}:
            return f"list of {_values(items)}"
    if "$ref" in schema or schema.get("type") == "object":
        return "mapping"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(
        f"{sign} {f'{schema[bound]:,}'.removesuffix('.0')}"
        for bound, sign in bounds.items()
        if bound in schema
    )
    kind = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"}
    return f"{kind.get(schema.get('type', ''), schema.get('type', 'any'))} {limits}".strip()


def _default(value: Any) -> str:
    if value is None or callable(value) or value in ((), {}):
        return ""
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _prose(docstring: str) -> str:
    """A docstring as Markdown: examples become code, and `Args:` with what is indented below it a list."""
    return "\n\n".join(map(_paragraph, inspect.cleandoc(docstring.replace("\b", "")).split("\n\n")))


def _paragraph(text: str) -> str:
    if re.match(r">>>|\s{2,}\S|unicross ", text):
        return f"```text\n{textwrap.dedent(text)}\n```"
    if head := re.match(r"(Args|Returns|Raises):\n", text):
        body = textwrap.dedent(text[head.end() :])
        return f"**{head[1]}**\n\n" + re.sub(r"^(\w+(?:, \w+)*): ", r"* `\1`: ", body, flags=re.MULTILINE)
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in row) + " |" for row in lines
    )


def notebook_page(name: str) -> str:
    """A notebook with its outputs; pictures are inside the page."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source.startswith("%%bash\n"):
            parts.append(f"```bash\n{source.removeprefix('%%bash').strip()}\n```")
        else:
            parts.append(f"```python\n{source}\n```")
        parts += map(_shown, cell.get("outputs", ()))
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\nThis is `notebooks/{name}.ipynb` of the repository, with its output.\n{rest}"


def _shown(output: dict[str, Any]) -> str:
    """What a cell gave, as Markdown."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell draws](data:image/png;base64,{data['image/png'].replace(chr(10), '')})"
    return f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/recipes.md": recipes_page,
    "reference/python.md": python_page,
    "notebooks/find_pictures.md": partial(notebook_page, "find_pictures"),
    "notebooks/does_it_help.md": partial(notebook_page, "does_it_help"),
}
