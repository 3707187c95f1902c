"""A run and where its data lie: remembered, moved, and kept where there is room."""

from pathlib import Path

import pytest

import tiny
from unicross.errors import RecipeError
from unicross.model_folder import RECIPE, located, with_root, write_recipe
from unicross.run import RunFolder
from unicross.training import dataset


def test_a_relative_place_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = with_root(tiny.recipe("photos", tiny.ALIGN), "photos")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    write_recipe(run, recipe)
    assert located(run, recipe) == recipe
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert located(run, recipe).data.root == str(tmp_path / "photos")
    absolute = with_root(recipe, "/elsewhere")
    write_recipe(run, absolute)
    assert located(run, absolute) == absolute


def test_only_the_place_of_the_data_may_differ_on_resuming(tmp_path: Path) -> None:
    recipe = tiny.recipe("photos", tiny.ALIGN)
    run = RunFolder(tmp_path)
    write_recipe(tmp_path, recipe)
    run.check_resumable(with_root(recipe, "/moved"))
    with pytest.raises(RecipeError, match=r"these differ: seed was"):
        run.check_resumable(with_root(recipe.model_copy(update={"seed": 7}), "/moved"))
    run.move_data(with_root(recipe, "/moved"))
    assert "/moved" in (tmp_path / RECIPE).read_text()


@pytest.mark.parametrize(
    ("free_memory", "free_disk", "cache"),
    [(10 * 2**30, 0, "memory"), (2**20, 10 * 2**30, "disk"), (2**20, 2**20, "none")],
)
def test_where_decoded_pictures_go(
    free_memory: int, free_disk: int, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "available_memory", lambda: free_memory)
    monkeypatch.setattr(dataset, "_free_disk", lambda _: free_disk)
    data = tiny.recipe("photos", tiny.ALIGN).data.model_copy(update={"cache": "auto"})
    chosen, note = dataset.choose_cache(data, 1000, 256, tmp_path, 1)
    assert chosen.cache == cache
    assert (note is None) == (cache == "memory")
    assert note is None or f"data.cache={cache}" in note
    assert dataset.choose_cache(data.model_copy(update={"cache": "none"}), 1, 8, tmp_path, 1)[1] is None


def test_memory_that_is_free() -> None:
    assert 2**20 < dataset.available_memory() < 2**50
