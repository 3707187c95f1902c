"""Recipes: strict, overridable, and every mistake named with its full path."""

import contextlib

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from unicross.config import Recipe
from unicross.errors import RecipeError
from unicross.recipe import SHIPPED, dump_recipe, load_recipe, make_recipe, recipe_path


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny.raw_recipe("photos")), encoding="utf-8")
    return tmp_path / "mine.yaml"


def says(text, raw=None, **changes):
    """Making the recipe fails, and the message holds `text`."""
    with pytest.raises(RecipeError) as caught:
        make_recipe(raw if raw is not None else tiny.raw_recipe("photos") | changes)
    assert text in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_shipped_recipes_ask_only_for_the_data(name):
    with pytest.raises(RecipeError, match=r"values missing: data.root. Give them .*: data.root=\.\.\."):
        load_recipe(name)
    recipe = load_recipe(name, ["data.root=photos"])
    assert recipe.data.root == "photos"
    assert recipe.epochs == sum(stage.epochs for stage in recipe.stages)


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_a_dumped_recipe_loads_as_the_same(name, tmp_path):
    recipe = load_recipe(name, ["data.root=photos"])
    (tmp_path / "dumped.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "dumped.yaml") == recipe


def test_a_shipped_recipe_is_not_hidden_by_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    assert recipe_path("clip") == SHIPPED / "clip.yaml"


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(RecipeError, match=r"recipe not found: clop. Give a file, or one of clip, .*iucc"):
        load_recipe("clop")


def test_stage_defaults_lie_under_what_a_stage_says():
    recipe = tiny.recipe(
        "photos",
        {"name": "a", "epochs": 1, "losses": {"image_text": 1.0}, "views": {"image_uni": {"blur": 0.0}}},
        {"name": "b", "epochs": 1, "losses": {"text_text": 0.5}, "optim": {"head_lr": 0.5}},
        losses={"text_text": 0.2},
        views={"text": "dropout", "image_uni": {"grey": 1.0}},
        batches={"mask_above": 0.9},
    )
    a, b = recipe.stages
    assert (a.losses.image_text, a.losses.text_text) == (1.0, 0.2)
    assert (b.losses.image_text, b.losses.text_text) == (0.0, 0.5)
    assert (a.views.text, a.views.image_uni.grey, a.views.image_uni.blur) == ("dropout", 1.0, 0.0)
    assert a.batches.mask_above == b.batches.mask_above == 0.9
    assert (a.optim.image_lr, b.optim.image_lr, b.optim.head_lr) == (1e-3, 1e-3, 0.5)


def test_clusters_are_of_four_without_a_guard_and_stand_for_a_gallery_of_a_thousand():
    clustered = tiny.SHARPEN | {"batches": {"kind": "clustered"}}
    for stages, defaults in (
        ([tiny.ALIGN, clustered], {}),
        ([tiny.ALIGN, tiny.SHARPEN], {"negatives_from": 30}),
    ):
        random, sharpen = tiny.recipe("photos", *stages, batches=defaults).stages
        gallery = defaults.get("negatives_from")
        assert (random.batches.kind, random.batches.mask_above, random.batches.negatives_from) == (
            "random",
            None,
            gallery,
        )
        assert (sharpen.batches.cluster_size, sharpen.batches.negatives_from) == (4, gallery or 1000)
    assert tiny.recipe("photos", clustered).stages[0].batches.mask_above is None
    (stage,) = tiny.recipe("photos", tiny.ALIGN, batches={"kind": "clustered"}).stages
    assert stage.batches.negatives_from == 1000


def test_a_gallery_of_null_stays_null_also_when_the_recipe_is_written_and_read(path):
    overrides = ["stages.2.batches.negatives_from=null"]
    assert load_recipe(path).stages[2].batches.negatives_from == 1000
    recipe = load_recipe(path, overrides)
    assert recipe.stages[2].batches.negatives_from is None
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    raw = tiny.raw_recipe("photos", tiny.SHARPEN, batches={"negatives_from": None})
    assert make_recipe(raw).stages[0].batches.negatives_from is None


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        tiny.recipe("photos").seed = 1


# -- mistakes ---------------------------------------------------------------------------------------


def test_unknown_keys_are_named_with_their_full_path():
    says("unknown key optimiser", optimiser={})
    says("unknown key train.batchsize", train={"batchsize": 3})
    says("unknown key model.image_sise", model=tiny.MODEL | {"image_sise": 3})
    stage = tiny.ALIGN | {"views": {"image": {"crops": [0.5, 1]}}}
    says("unknown key stages.1.views.image.crops", stages=[tiny.UNI, stage])


def test_wrong_values_are_named_with_what_they_are():
    says("train.batch_size: Input should be a valid integer", train={"batch_size": "many"})
    says("(got 'many')", train={"batch_size": "many"})
    says("train.batch_size: Input should be greater than or equal to 2 (got 1)", train={"batch_size": 1})
    says("model.image_pool", model=tiny.MODEL | {"image_pool": "max"})
    says("seed: Input should be greater than or equal to 0 (got -1)", seed=-1)
    says("stages.0.epochs", stages=[tiny.ALIGN | {"epochs": -1}])
    says("does nothing but fit heads", stages=[tiny.ALIGN | {"epochs": 0}])
    says("stages.0.optim.betas.1", optim={"betas": [0.9, 1.0]})


def test_a_tower_of_a_wrong_kind_is_one_problem_at_its_own_path():
    with pytest.raises(RecipeError) as caught:
        tiny.recipe("photos", model={"image": 5})
    assert str(caught.value) == (
        "recipe: model.image: give a folder or hub name, or a configuration with a model_type (got 5)"
    )


def test_all_mistakes_are_told_at_once():
    raw = tiny.raw_recipe("photos", train={"batch_size": 0, "colour": 1})
    says("train.batch_size", raw)
    says("unknown key train.colour", raw)


def test_missing_parts_are_named():
    raw = tiny.raw_recipe("photos")
    del raw["data"]
    says("missing key data", raw)
    says("missing key stages.0.epochs", stages=[{"name": "x", "losses": {"image_text": 1}}])
    says("stages", stages=[])
    says("stages", stages="clip")
    says("stages.0", stages=["clip"])


def test_an_override_that_would_reach_no_stage_is_refused(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["batches.mask_above=1.1"])
    assert "stage 'sharpen' has its own batches.mask_above" in str(caught.value)
    assert "write stages.2.batches.mask_above=..." in str(caught.value)
    recipe = load_recipe(path, ["stages.2.batches.mask_above=1.1", "views.image.flip=0"])
    assert recipe.stages[2].batches.mask_above == 1.1
    assert all(stage.views.image.flip == 0 for stage in recipe.stages)


def test_clusters_without_an_image_text_loss_are_refused():
    says(
        "serve the image-text loss: give it a weight, or set kind=random",
        stages=[tiny.UNI | {"batches": {"kind": "clustered", "cluster_size": 3}}],
    )


def test_values_left_open_are_listed_with_how_to_give_them():
    raw = tiny.raw_recipe("???", model={"image": {"model_type": "???"}})
    says("values missing: model.image.model_type, data.root", raw)
    says("model.image.model_type=... data.root=...", raw)


def test_stages_without_a_loss_or_with_one_name_are_refused():
    says("every loss has weight 0", stages=[{"name": "x", "epochs": 1, "losses": {"image_text": 0}}])
    says("stages need different names, got ['align', 'align']", stages=[tiny.ALIGN, tiny.ALIGN])


def test_a_cluster_must_fit_in_a_batch():
    whole = tiny.SHARPEN | {"batches": {"kind": "clustered", "cluster_size": 8}}
    assert tiny.recipe("photos", whole)
    stage = tiny.SHARPEN | {"batches": {"kind": "clustered", "cluster_size": 9}}
    says("stage 'sharpen': a cluster of 9 does not fit in a batch of 8: lower batches.cl", stages=[stage])


def test_clusters_are_not_looked_at_where_batches_are_random():
    assert tiny.recipe("photos", tiny.ALIGN | {"batches": {"cluster_size": 1000}})


@pytest.mark.parametrize("crop", [[0.9, 0.5], [0, 1], [0.5, 1.5]])
def test_a_crop_is_two_ordered_shares(crop):
    says("stages.0.views.image: crop must be two shares of the area", views={"image": {"crop": crop}})


def test_several_captions_are_siblings():
    raw = {
        "model": {"image": "a", "text": "b"},
        "data": {"root": "c"},
        "views": {"captions": 2, "text": "dropout"},
    }
    with pytest.raises(RecipeError, match="text=sibling"):
        make_recipe(raw | {"stages": [tiny.ALIGN]})


@pytest.mark.parametrize(
    ("loss", "frozen"),
    [
        ("image_text", ["image", "text", "image_head", "text_head", "temperature"]),
        ("image_image", ["image", "image_head"]),
        ("text_text", ["text", "text_head"]),
    ],
)
def test_a_loss_must_move_something(loss, frozen):
    stage = {"name": "still", "epochs": 1, "losses": {"image_text": 1.0, loss: 1.0}, "freeze": frozen}
    says(f"stages.0: the {loss} loss moves nothing", stages=[stage])
    assert tiny.recipe("photos", stage | {"freeze": frozen[1:]})


# -- overrides --------------------------------------------------------------------------------------


def test_overrides_reach_every_depth(path):
    recipe = load_recipe(
        path,
        [
            "seed=3",
            "data.split.val=0.1",
            "model.image.hidden_size=64",
            "stages.1.epochs=7",
            "stages.2.freeze=[text, image]",
            "train.clip_norm=null",
            "optim.image_lr=1e-5",
            "views.image.crop=[0.9, 1.0]",
        ],
    )
    assert recipe.seed == 3
    assert recipe.data.split.val == 0.1
    assert recipe.train.clip_norm is None
    assert isinstance(recipe.model.image, dict)
    assert recipe.model.image["hidden_size"] == 64
    assert recipe.stages[1].epochs == 7
    assert recipe.stages[2].freeze == ("text", "image")
    assert recipe.stages[0].optim.image_lr == 1e-5
    assert recipe.stages[0].views.image.crop == (0.9, 1.0)


def test_the_last_of_two_equal_overrides_holds(path):
    assert load_recipe(path, ["seed=3", "seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed': write it as key.path=value"),
        ("=3", "override '=3': write it as key.path=value"),
        ("seed=[1", "override 'seed=[1': the value is not YAML"),
        ("seed.deep=1", "override 'seed.deep=1': seed is a single value and has no keys of its own"),
        ("stages.3.epochs=1", "'3' is not a position in a list of 3 (0 is the first)"),
        ("stages.align.epochs=1", "'align' is not a position in a list of 3"),
        ("stages.-1.epochs=1", "'-1' is not a position in a list of 3"),
        ("train.batchsize=4", "unknown key train.batchsize: batch_size?"),
        ("data.0.x=4", "the recipe has no list at data"),
        ("optim.head_lr=.inf", "stages.0.optim.head_lr"),
        ("data.split.val=true", "give a split's name, a count, a share"),
        ("data.split.val=0", "give a split's name, a count, a share"),
        ("optim.speed=4", "unknown key stages.0.optim.speed"),
    ],
)
def test_wrong_overrides_are_sentences(path, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_any_override_is_taken_or_refused_with_a_sentence(text):
    """Whatever is typed, never another exception."""
    with contextlib.suppress(RecipeError):
        assert isinstance(load_recipe("clip", ["data.root=x", text]), Recipe)


@pytest.mark.parametrize("content", ["", "- 1\n- 2", "clip", "a: [1", "{1: 2}", "\x00"])
def test_files_that_are_no_recipe(tmp_path, content):
    path = tmp_path / "odd.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=str(path)) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_given_twice_is_refused(path):
    path.write_text(path.read_text() + "\nseed: 4\nseed: 5\n")
    with pytest.raises(RecipeError, match="'seed' is given twice"):
        load_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        "stages:\n- &one {name: a, epochs: 1, losses: {image_text: 1.0}}\n- {<<: *one, name: b}",
        "seed: &self [*self]",
        "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]",
    ],
)
def test_aliases_with_which_a_small_file_can_explode_are_refused(path, text):
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"aliases .* are not read"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=r"aliases .* are not read"):
        load_recipe("clip", ["data.root=x", "seed=[&a 1, *a]"])


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "odd.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(RecipeError, match=r"odd.yaml: not a readable YAML file"):
        load_recipe(tmp_path / "odd.yaml")


def test_what_only_follows_from_a_mistake_inside_is_not_told(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["stages.0.epochs=two"])
    assert "stages.0.epochs" in str(caught.value)
    assert "Tuple" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1.5, 112])
def test_the_size_of_a_view_is_a_share_of_the_models(tmp_path, size):
    with pytest.raises(RecipeError, match=r"views\.image_uni\.size"):
        tiny.recipe(tmp_path, tiny.UNI, views={"image_uni": {"size": size}})
