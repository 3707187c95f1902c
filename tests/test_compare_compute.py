"""Comparing recipes at equal compute, with a fake training."""

import pytest

from fake_runs import GIVEN, FakeSteps, write_recipe
from unicross.compare import compare
from unicross.recipe import load_recipe


@pytest.fixture
def fake():
    return FakeSteps()


@pytest.fixture
def recipes(tmp_path):
    return [
        write_recipe(tmp_path, "plain", epochs=(1, 3)),
        write_recipe(tmp_path, "fancy", epochs=(4,), weight=0.3),
    ]


def load(folder):
    return load_recipe(folder / "recipe.yaml")


def test_equal_compute_lengthens_the_last_stage(fake, recipes, tmp_path):
    found = compare(recipes, [0, 1], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    plain, longer, fancy = found.rows
    assert [row.label for row in found.rows] == ["plain", "plain (equal compute)", "fancy"]
    # 5.5 spent, 10 wanted, 1.5 an epoch of the last stage: three more epochs reach 10.
    assert (plain.epochs, longer.epochs, fancy.epochs) == (4, 7, 4)
    assert longer.compute == pytest.approx(fancy.compute)
    assert [stage.epochs for stage in load(tmp_path / longer.runs[0]).stages] == [1, 6]
    assert set(fancy.against) == {"plain", "plain (equal compute)"}
    assert set(longer.against) == {"plain"}


def test_the_first_recipe_may_be_the_dearest(fake, recipes, tmp_path):
    found = compare(recipes[::-1], [0], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    assert [row.label for row in found.rows] == ["fancy", "plain", "plain (equal compute)"]
    assert [set(row.against) for row in found.rows] == [set(), {"fancy"}, {"fancy"}]


def test_equal_compute_within_two_percent_is_left_alone(fake, recipes, tmp_path):
    again = tmp_path / "again.yaml"
    again.write_text(recipes[0].read_text().replace("image_text: 1.0", "image_text: 0.9"))
    found = compare([recipes[0], again], [0], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    assert [row.label for row in found.rows] == ["plain", "again"]


@pytest.mark.parametrize(("dearer", "lengthened"), [((1, 3), False), ((2, 3), True), ((1, 4), True)])
def test_a_recipe_is_lengthened_only_where_that_brings_the_two_closer(fake, tmp_path, dearer, lengthened):
    # The cheaper spends 5, an epoch of its last stage 1.5, and the dearer 5.5, 6.5 or 7.
    recipes = [
        write_recipe(tmp_path, "cheaper", epochs=(2, 2)),
        write_recipe(tmp_path, "dearer", epochs=dearer),
    ]
    found = compare(recipes, [0], tmp_path / "out", match="compute", overrides=GIVEN, steps=fake.steps)
    assert ("cheaper (equal compute)" in [row.label for row in found.rows]) == lengthened
    spent = [row.compute for row in found.rows]
    assert abs(spent[-2] - spent[-1]) <= abs(spent[0] - spent[-1])


def test_without_compute_in_the_log_epochs_count_alike(fake, recipes, tmp_path):
    compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    for log in tmp_path.glob("*/seed-0/metrics.jsonl"):
        log.write_text('{"kind": "step", "loss": 1.0}\n')
    found = compare(recipes, [0], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    assert found.rows[1].epochs == 4 + 4  # 5.5 / 4 an epoch: four more reach 10 * .98


def test_a_recipe_that_only_fits_heads_has_no_epoch_to_add(fake, recipes, tmp_path):
    heads = tmp_path / "heads.yaml"
    heads.write_text(recipes[0].read_text().replace("epochs: 3", "epochs: 0\n  fit_heads: true"))
    found = compare([heads, recipes[1]], [0], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    assert [(row.label, row.epochs) for row in found.rows] == [("heads", 1), ("fancy", 4)]
