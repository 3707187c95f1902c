"""Recipes that name a base and state what they change."""

import pytest
import yaml

import tiny
from unicross.errors import RecipeError
from unicross.model_folder import write_recipe
from unicross.recipe import load_recipe, make_recipe
from unicross.run import RunFolder


@pytest.fixture
def write(tmp_path):
    """Write a recipe file into a folder of its own: `write("mine.yaml", base="clip")`."""

    def write(name, **raw):
        path = tmp_path / "recipes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return path

    return write


def test_mappings_are_merged_key_by_key_and_lists_are_taken_whole(write):
    raw = tiny.raw_recipe("photos", views={"image": {"crop": [0.3, 0.9], "flip": 0.1}})
    write("whole.yaml", **raw)
    changes = {
        "model": {"dim": 8, "image": {"hidden_size": 64}},
        "views": {"image": {"crop": [0.7, 1.0]}},
        "stages": [tiny.ALIGN | {"epochs": 3}],
    }
    path = write("mine.yaml", base="whole.yaml", **changes)
    model = raw["model"] | {"dim": 8, "image": tiny.VIT | {"hidden_size": 64}}
    by_hand = {"model": model, "views": {"image": {"crop": [0.7, 1.0], "flip": 0.1}}}
    assert load_recipe(path) == make_recipe(raw | by_hand | {"stages": changes["stages"]})


def test_a_base_is_a_file_beside_wherever_one_stands(write, tmp_path, monkeypatch):
    write("whole.yaml", **tiny.raw_recipe("photos"))
    path = write("mine.yaml", base="whole.yaml", seed=5)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (load_recipe(path).seed, load_recipe(path).data.root) == (5, "photos")


def test_a_base_is_a_shipped_recipe_that_leaves_the_data_open(write):
    path = write("mine.yaml", base="clip", data={"root": "photos"}, train={"batch_size": 16})
    mine, clip = load_recipe(path), load_recipe("clip", ["data.root=photos"])
    assert mine.train.batch_size == 16
    assert (mine.model, mine.data, mine.stages) == (clip.model, clip.data, clip.stages)


def test_a_base_may_have_a_base_and_overrides_lie_over_all(write):
    write("first.yaml", **tiny.raw_recipe("photos", train={"batch_size": 4, "compile": True}))
    write("second.yaml", base="first.yaml", train={"batch_size": 5}, seed=1)
    recipe = load_recipe(write("third.yaml", base="second.yaml", seed=2), ["model.dim=12"])
    assert (recipe.train.batch_size, recipe.train.compile) == (5, True)
    assert (recipe.seed, recipe.model.dim) == (2, 12)


def test_words_that_end_in_a_colon_are_no_mapping(write):
    path = write("mine.yaml", **tiny.raw_recipe("photos"))
    assert load_recipe(path, ["model.text_prefix=query: "]).model.text_prefix == "query: "
    assert load_recipe(path, ["data.split={train: a, val: b}"]).data.split.val == "b"


@pytest.mark.parametrize("way", ["", "../recipes/"])
def test_a_base_that_leads_back_is_refused(write, way):
    write("first.yaml", base=f"{way}second.yaml")
    path = write("second.yaml", base=f"{way}first.yaml")
    with pytest.raises(RecipeError, match=r"first\.yaml: its base .*second\.yaml leads back to itself"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=r"leads back to itself: name another recipe"):
        load_recipe(write("own.yaml", base=f"{way}own.yaml"))


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("nothing.yaml", "recipe not found: nothing.yaml"),
        (["clip"], r"base names a recipe or a file, got \['clip'\]"),
        ({"model": 1}, "base names a recipe or a file"),
    ],
)
def test_a_base_that_is_none_is_a_sentence(write, base, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_recipe(write("mine.yaml", base=base))
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_base_are_found_in_what_is_laid_over_it(write):
    write("whole.yaml", **tiny.raw_recipe("photos", train={"batchsize": 4}))
    with pytest.raises(RecipeError, match=r"mine\.yaml: unknown key train\.batchsize"):
        load_recipe(write("mine.yaml", base="whole.yaml", seed=3))


def test_what_a_run_keeps_of_it_is_whole(write, tmp_path):
    write("whole.yaml", **tiny.raw_recipe("photos"))
    path = write("mine.yaml", base="whole.yaml", seed=5)
    recipe = load_recipe(path)
    write_recipe(tmp_path, recipe)
    path.with_name("whole.yaml").unlink()
    assert RunFolder(tmp_path).recipe() == recipe
    assert "base" not in yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))


def test_what_a_file_says_wrong_is_not_blamed_on_an_override_beside_it(write):
    path = write("mine.yaml", base="clip", model={"image": 7}, data={"root": "x"})
    with pytest.raises(RecipeError, match=r"mine\.yaml: model\.image"):
        load_recipe(path, ["model.dim=64"])
    with pytest.raises(RecipeError, match=r"^override 'model\.image=7': model\.image"):
        load_recipe(path, ["model.image=7"])
