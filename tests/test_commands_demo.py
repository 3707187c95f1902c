"""`unicross demo` from end to end, with its recipes cut short."""

import re

from typer.testing import CliRunner

from unicross.cli import app
from unicross.commands import demo
from unicross.recipe import dump_recipe, load_recipe


def test_the_demo_trains_compares_indexes_and_searches(tmp_path, monkeypatch):
    for name in demo.RECIPES:
        recipe = load_recipe(name, ["data.root=later", "train.threads=1"])
        short = [stage.model_copy(update={"epochs": 1}) for stage in recipe.stages]
        text = dump_recipe(recipe.model_copy(update={"stages": tuple(short)}))
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(demo, "RECIPES", [tmp_path / f"{name}.yaml" for name in demo.RECIPES])
    monkeypatch.setattr(demo, "TESTED", 40)
    said = CliRunner().invoke(app, ["demo", "--items", "200", "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "200 pictures teach little" in said.output
    assert "rSum minus demo_clip's" in said.output
    assert said.output.count("<- the one described") <= 3
    assert len(re.findall(r"\d\.\d{3}  ", said.output)) >= 9  # three searches, three hits each
    assert (tmp_path / "out" / "store" / "store.json").is_file()
