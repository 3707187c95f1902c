"""The floors of the house (DESIGN.md): imports run one way, upward only."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "unicross"
FILES = sorted(SOURCE.rglob("*.py"))

FLOORS = (
    {"reading", "wording"},
    {"errors", "files", "prefetch", "progress", "streams"},  # the ground
    {
        "axes",
        "batches",
        "calibration",
        "canonical",
        "clustering",
        "device",
        "events",
        "fusion",
        "losses",
        "matching",
        "metrics",
        "stage",
    },  # plain data and mathematics
    {"config", "result"},
    {"recipe"},
    {"model_folder"},
    {"data"},
    {"run"},
    {"model"},
    {"embed"},
    {"evaluation", "suspects"},
    {"store", "training"},
    {"compare", "export", "folding", "hybrid"},
    {"query"},
    {"search"},
    {"contact_sheet", "demo", "report", "serve"},
    {"hygiene"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
"""A module imports from its own package and from lower floors only."""

WITHIN = {
    "data": (
        {"bombs", "image_source", "places", "preparation", "walk"},
        {"decoding", "items"},
        {"images", "records"},
        {"languages", "turns", "tokens", "views", "pixels", "assembly"},
        {"formats"},
        {"load", "lookup"},
    ),
    "model": (
        {"hub", "hubness", "limits"},
        {"weights"},
        {"backbones", "pooling", "processors"},
        {"cleaning", "packing", "tokenizer"},
        {"kernels", "tower"},
        {"inference"},
        {"pairs"},
        {"open_clip_siglip", "routes"},
        {"open_clip"},
        {"pair_sources"},
        {"parts"},
        {"two_tower"},
    ),
    "training": (
        {"trackers"},
        {"cost", "dataset", "distributed", "event_log", "lora", "signals"},
        {"embedding", "sharding", "used_words"},
        {"optim"},
        {"checks", "hubness_fitting", "interpolation", "rounds"},
        {"head_fitting"},
        {"batch", "checkpoint"},
        {"features", "state", "step_log"},
        {"batch_losses"},
        {"step"},
        {"selection"},
        {"plan"},
        {"loop"},
        {"entry"},
    ),
    "store": (
        {"cached", "filters", "lance_text", "lance_torn"},
        {"base"},
        {"archive", "catalog", "lance_index", "lance_rows", "milvus", "thumbnails"},
        {"lance"},
        {"calibrate", "changes", "contents", "copy", "gaps", "memory", "moved", "sources"},
        {"thumbnailing"},
        {"index"},
        {"bulk", "sample"},
    ),
    "export": ({"huggingface", "card", "push"}, {"onnx", "open_clip", "sentence_transformers"}),
    "compare": ({"intervals", "side_by_side"}, {"table", "runs"}, {"comparison"}),
    "hygiene": ({"captions", "fingerprints"}, {"leaks", "twins"}, {"check"}, {"clean", "sheet"}),
}
"""The order within packages: a module imports from lower ones of its package only."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def top(path):
    """`training/loop.py` -> `training`, `model.py` -> `model`."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path, *, types=True):
    """Full names of all that a file imports, wherever in the file; without `types`, only what runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not types:
        tree.body = [
            n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path):
    """The packages that a file imports from: `torch`, `unicross.model`, ..."""
    for name in imports(path):
        parts = name.split(".")
        yield ".".join(parts[:2]) if parts[0] == "unicross" else parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_upward_only(path):
    if path == SOURCE / "__init__.py":
        return  # the public names; it imports them when they are asked for
    own = top(path)
    assert own in FLOOR, f"put the new module {own} on a floor"
    for package in packages(path):
        name = package.removeprefix("unicross.")
        if package.startswith("unicross.") and name not in (own, "__version__"):
            assert name in FLOOR, f"{path}: imports {package}, which has no floor"
            assert FLOOR[name] < FLOOR[own], f"{path}: {own} may not import {name}"


@pytest.mark.parametrize("package", WITHIN)
def test_imports_run_upward_within_packages(package):
    level = {name: number for number, names in enumerate(WITHIN[package]) for name in names}
    files = {path for path in FILES if top(path) == package and path.name != "__init__.py"}
    modules = {path.relative_to(SOURCE / package).parts[0].removesuffix(".py") for path in files}
    assert modules == set(level), "the order names just the modules that there are"
    for path in files:
        own = path.relative_to(SOURCE / package).parts[0].removesuffix(".py")
        for name in imports(path, types=False):
            parts = name.split(".")
            if (
                parts[:2] == ["unicross", package]
                and len(parts) > 2
                and parts[2] in level
                and parts[2] != own
            ):
                assert level[parts[2]] < level[own], f"{path}: {own} may not import {parts[2]}"


def test_floors_name_only_what_is_there():
    assert {top(path) for path in FILES} - {"__init__"} == set(FLOOR)


def outside(name):
    """Packages that the files of a module import."""
    return {package for path in FILES if top(path) == name for package in packages(path)}


def test_losses_are_mathematics_only():
    assert outside("losses") == {"__future__", "collections", "dataclasses", "torch", "typing"}


def test_plans_and_clusters_see_arrays_only():
    heavy = {"torch", "transformers", "kornia", "PIL"}
    for name in ("batches", "clustering", "config", "metrics"):
        assert not outside(name) & heavy, name


def test_serving_touches_no_torch_but_through_search():
    assert not outside("serve") & {"torch", "transformers", "unicross.model", "unicross.model.backbones"}


def test_only_the_command_line_prints():
    for path in FILES:
        if top(path) in ("commands", "cli"):
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert "print" not in names, path
        assert not {"typer", "click"} & set(packages(path)), path


def test_commands_import_when_they_run():
    """At the top of a command's module: the standard library, typer, errors, and other commands."""
    for path in (SOURCE / "commands").glob("*.py"):
        if path.name == "show.py":  # not a command: what commands show a run with
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("unicross"):
                assert node.module == "unicross.errors" or node.module.startswith("unicross.commands."), path
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"torch", "transformers", "numpy", "rich", "PIL"}, (
                path
            )
