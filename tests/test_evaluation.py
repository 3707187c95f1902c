"""Evaluation against hand-made embeddings and a model that sees colours and nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unicross import evaluation
from unicross.clustering import normalise
from unicross.commands.evaluate import _print
from unicross.data.image_source import ImageFile
from unicross.data.items import CaptionKind, Item
from unicross.errors import DataError
from unicross.evaluation import evaluate, evaluate_embeddings
from unicross.result import Result

# Images on the axes. Captions: two of image 0 (one nearer to 1), one of 1, three of 2 (one nearer to 0).
IMAGES = normalise(np.eye(3))
TEXTS = normalise([[9, 1, 0], [1, 2, 0], [0, 5, 1], [0, 0, 1], [0.5, 0, 4], [8, 0, 1]])
TEXT_IMAGE = np.array([0, 0, 1, 2, 2, 2])


def test_hand_made_embeddings():
    result = evaluate_embeddings(IMAGES, TEXTS, TEXT_IMAGE, item_ids=["a", "b", "c"])
    assert (result.n_images, result.n_captions) == (3, 6)
    assert result.i2t.ranks.tolist() == [1, 1, 1]
    assert result.t2i.ranks.tolist() == [1, 2, 1, 1, 1, 2]
    assert result.i2t.rivals.tolist() == [5, 1, 2]
    assert result.t2i.rivals.tolist() == [1, 1, 2, 0, 0, 0]
    assert (result.t2i.margins < 0).tolist() == [False, True, False, False, False, True]
    metrics = result.metrics
    assert metrics["i2t/R@1"] == 100.0
    assert metrics["t2i/R@1"] == pytest.approx(100 * 4 / 6)
    assert metrics["t2i/R@5"] == 100.0
    assert metrics["rsum"] == pytest.approx(500 + 100 * 4 / 6)
    assert metrics["t2i/median_rank"] == 1.0
    assert metrics["t2i/mean_rank"] == pytest.approx(8 / 6)
    assert metrics["t2i/mAP"] == pytest.approx(100 * (4 + 2 * 0.5) / 6)
    # Caption 0 finds 5 before its sibling 1; 1 finds 2 before 0; 3 and 4 find each other; 5 finds 0 first.
    assert metrics["t2t/R@1"] == pytest.approx(100 * 2 / 5)
    assert not any(key.startswith("i2i") for key in metrics)


def test_views_are_ranked_among_the_pictures():
    views = normalise([[5, 1, 0], [3, 2, 0], [0, 0, 1]])
    result = evaluate_embeddings(IMAGES, TEXTS, TEXT_IMAGE, views=views)
    assert result.metrics["i2i/R@1"] == pytest.approx(100 * 2 / 3)


def test_single_captions_ask_nothing_of_t2t():
    result = evaluate_embeddings(IMAGES, TEXTS[[0, 2, 3]], np.arange(3))
    assert "t2t/R@1" not in result.metrics


# Three items in four dimensions: a and c have two images, one of c's nearer to b; captions in two languages.
SEVERAL = {
    "images": normalise([[5, 0, 0, 1], [4, 1, 0, 0], [0, 5, 0, 0], [0, 0, 5, 0], [0, 4, 2, 0]]),
    "image_item": np.array([0, 0, 1, 2, 2]),
    "texts": normalise([[1, 0, 0, 0], [0, 9, 1, 0], [0, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 1, 9, 0]]),
    "text_item": np.array([0, 0, 1, 1, 2, 2]),
    "languages": np.array(["en", "de"] * 3),
}


def test_any_image_of_the_item_is_right():
    result = evaluate_embeddings(**SEVERAL)
    assert (result.n_items, result.n_images, result.n_captions) == (3, 5, 6)
    assert result.t2i.ranks.tolist() == [1, 3, 1, 1, 1, 1]
    assert result.i2t.ranks.tolist() == [1, 1, 1, 1, 4]
    assert result.t2i.rivals.tolist() == [2, 2, 4, 4, 0, 2]
    # c's second image finds b's before its sibling; b's has none and asks nothing.
    assert result.ways["i2i"].ranks.tolist() == [1, 1, 0, 1, 2]
    assert result.metrics["i2i/R@1"] == 75.0
    parts = [f"{way}/R@{k}" for way in ("i2t", "t2i", "i2i", "t2t") for k in (1, 5, 10)]
    assert result.metrics["rsum_all"] == pytest.approx(sum(result.metrics[part] for part in parts))


def test_recalls_by_language():
    metrics = evaluate_embeddings(**SEVERAL).metrics
    assert metrics["t2i_en/R@1"] == 100.0
    assert metrics["t2i_de/R@1"] == pytest.approx(200 / 3)
    # Among the German captions, the English one of a finds that of b before its own, and the other way round.
    assert metrics["t2t_en_de/R@1"] == pytest.approx(100 / 3)
    # Among the English ones, the German one of a finds that of b.
    assert metrics["t2t_de_en/R@1"] == pytest.approx(200 / 3)
    unknown = evaluate_embeddings(**SEVERAL | {"languages": np.array(["en"] * 5 + [""])}).metrics
    assert not any("_en" in key for key in unknown)


def test_recalls_by_field_are_those_by_language_under_other_names():
    fields = np.array(["title", "tags"] * 3)
    metrics = evaluate_embeddings(**SEVERAL, fields=fields).metrics
    for of_field, of_language in (("title", "en"), ("tags", "de")):
        assert metrics[f"t2i_{of_field}/R@1"] == metrics[f"t2i_{of_language}/R@1"]
    assert metrics["t2t_title_tags/R@1"] == metrics["t2t_en_de/R@1"]
    assert metrics["t2t_tags_title/R@1"] == metrics["t2t_de_en/R@1"]


def test_equal_captions_count_for_all_images_of_their_items():
    """The German caption of a says what the English one of b says, or what the German one of c says."""
    plain = evaluate_embeddings(**SEVERAL).metrics
    assert (plain["t2i/R@1"], plain["i2t/R@1"]) == (pytest.approx(500 / 6), 80.0)
    of_b = evaluate_embeddings(**SEVERAL, numbers=np.array([0, 1, 1, 2, 3, 4])).metrics
    assert (of_b["t2i_equal/R@1"], of_b["i2t_equal/R@1"]) == (100.0, 80.0)
    of_c = evaluate_embeddings(**SEVERAL, numbers=np.array([0, 1, 2, 3, 4, 1])).metrics
    assert (of_c["t2i_equal/R@1"], of_c["i2t_equal/R@1"]) == (pytest.approx(500 / 6), 100.0)


def test_folds_of_items_with_several_images():
    twice = {name: np.concatenate([values, values]) for name, values in SEVERAL.items()}
    twice |= {
        name: np.concatenate([SEVERAL[name], SEVERAL[name] + 3]) for name in ("image_item", "text_item")
    }
    folded, one = evaluate_embeddings(**twice, folds=2), evaluate_embeddings(**SEVERAL)
    assert folded.metrics == pytest.approx(one.metrics)
    assert folded.ways["i2i"].ranks.tolist() == one.ways["i2i"].ranks.tolist() * 2


def test_of_very_many_captions_a_sample_asks_for_siblings(monkeypatch):
    rng = np.random.default_rng(0)
    images, owner = normalise(rng.normal(size=(400, 8))), np.repeat(np.arange(400), 2)
    texts = normalise(images[owner] + 0.25 * rng.normal(size=(800, 8)))
    whole = evaluate_embeddings(images, texts, owner).metrics
    monkeypatch.setattr(evaluation, "SIBLING_QUERIES", 300)
    some = evaluate_embeddings(images, texts, owner).metrics
    assert some["t2t/R@1"] * 3 == pytest.approx(round(some["t2t/R@1"] * 3))  # of 300 queries
    assert some["t2t/R@1"] != whole["t2t/R@1"]
    assert some["t2t/R@1"] == pytest.approx(whole["t2t/R@1"], abs=8)
    assert {k: v for k, v in some.items() if "t2t" not in k} == {
        k: v for k, v in whole.items() if "t2t" not in k
    }


def test_folds_are_consecutive_and_averaged():
    rng = np.random.default_rng(0)
    images, text_image = normalise(rng.normal(size=(10, 6))), np.repeat(np.arange(10), 2)
    texts = normalise(images[text_image] + 0.5 * rng.normal(size=(20, 6)))
    views = normalise(images + 0.5 * rng.normal(size=(10, 6)))
    whole = evaluate_embeddings(images, texts, text_image, views=views, folds=2)
    halves = [
        evaluate_embeddings(
            images[5 * half : 5 * half + 5],
            texts[10 * half : 10 * half + 10],
            text_image[:10],
            views=views[5 * half : 5 * half + 5],
        )
        for half in range(2)
    ]
    assert whole.metrics.keys() == halves[0].metrics.keys()
    for key, value in whole.metrics.items():
        assert value == pytest.approx(np.mean([half.metrics[key] for half in halves])), key
    assert whole.t2i.ranks.tolist() == [*halves[0].t2i.ranks, *halves[1].t2i.ranks]
    assert whole.t2i.rivals.tolist() == [*halves[0].t2i.rivals, *(halves[1].t2i.rivals + 5)]
    assert whole.i2t.rivals.tolist() == [*halves[0].i2t.rivals, *(halves[1].i2t.rivals + 10)]
    with pytest.raises(DataError, match="10 items in 11 folds"):
        evaluate_embeddings(images, texts, text_image, folds=11)


def test_a_model_without_sense_scores_like_chance():
    """All embeddings equal: pessimistic ties put every positive last, so that a collapse is no success."""
    result = evaluate_embeddings(np.ones((4, 2)), np.ones((8, 2)), np.arange(8) // 2)
    assert result.i2t.ranks.tolist() == [7] * 4
    assert result.t2i.ranks.tolist() == [4] * 8
    assert result.metrics["t2t/R@1"] == 0.0


@pytest.mark.parametrize("folds", [1, 4])
def test_saved_and_loaded_is_the_same(tmp_path, folds):
    result = evaluate_embeddings(normalise(np.eye(4)), normalise(np.eye(4)), np.arange(4), folds=folds)
    result.save(tmp_path / "val.json")
    loaded = Result.load(tmp_path / "val.json")
    assert loaded.metrics == result.metrics
    assert loaded.item_ids == result.item_ids
    assert loaded.folds == folds
    np.testing.assert_array_equal(loaded.text_item, result.text_item)
    np.testing.assert_array_equal(loaded.image_item, result.image_item)
    assert loaded.ways.keys() == result.ways.keys()
    for way in result.ways:
        for name in ("ranks", "rivals", "margins"):
            values = getattr(loaded.ways[way], name), getattr(result.ways[way], name)
            np.testing.assert_allclose(*values, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["val.json"]


def test_loading_something_else_is_refused(tmp_path):
    for text in ("{", "{}", "[1]", '{"metrics": {}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json: not a saved evaluation"):
            Result.load(tmp_path / "x.json")
    with pytest.raises(DataError, match="absent"):
        Result.load(tmp_path / "absent.json")


COLOURS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 190), "yellow": (200, 190, 30)}


class ColourModel:
    """Embeds a picture as its mean colour, a text as the colour it names; remembers what it was shown."""

    picture_rules = SimpleNamespace(side=16, resize="squash")

    def __init__(self):
        self.shown = []

    def encode_pixels(self, pixels):
        assert len(pixels) <= 64
        self.shown.append(pixels)
        return normalise(pixels.mean(axis=(1, 2)) - 100.0)

    def encode_texts(self, texts):
        return normalise([np.array(COLOURS[text.split()[-1].lower()]) - 100.0 for text in texts])


@pytest.fixture
def items(tmp_path):
    made = []
    for name, colour in COLOURS.items():
        pixels = np.full((40, 60, 3), colour, np.uint8)
        pixels[:, :20] //= 2
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        made.append(Item(name, (ImageFile(tmp_path / f"{name}.png"),), (f"a {name}", f"the colour {name}")))
    return made


def test_evaluates_a_model_on_pairs_only(items):
    extra = [
        Item("text", (), ("some red",)),
        replace(items[0], id="image", captions=()),
    ]
    result = evaluate(ColourModel(), [*extra, *items])
    assert result.item_ids == tuple(COLOURS)
    assert result.n_captions == 8
    assert result.metrics["rsum"] == pytest.approx(600)
    assert result.metrics["i2i/R@1"] == 100.0
    assert result.metrics["t2t/R@1"] == 100.0


def test_the_fields_of_captions_are_evaluated_and_shown(items, capsys):
    titled = [replace(item, kinds=(CaptionKind("title"), CaptionKind("tags"))) for item in items]
    result = evaluate(ColourModel(), titled)
    assert result.metrics["t2t_title_tags/R@1"] == 100.0
    _print(result)
    shown = capsys.readouterr().out
    assert "R@1 by language or field" in shown
    assert "to tags" in shown
    _print(evaluate(ColourModel(), items))
    assert "R@1 by" not in capsys.readouterr().out


def test_changed_pictures_are_changed_and_fixed_by_the_seed(items):
    models = [ColourModel(), ColourModel(), ColourModel()]
    for model, seed, batch in zip(models, (0, 0, 1), (64, 3, 64), strict=True):
        evaluate(model, items, seed=seed, batch_size=batch)
    plain, views = models[0].shown
    assert np.abs(plain.astype(int) - views).mean(axis=(1, 2, 3)).min() > 2
    again = np.concatenate(models[1].shown)[len(items) :]
    assert (again == views).all()
    assert (models[2].shown[1] != views).any()


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="none of 1 items has both an image and a caption"):
        evaluate(ColourModel(), [Item("text", (), ("some red",))])


def test_broken_picture_is_named(items, tmp_path):
    data = (tmp_path / "red.png").read_bytes()
    (tmp_path / "red.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"red\.png"):
        evaluate(ColourModel(), items)


def test_equal_captions_count_as_right_beside_the_protocol():
    """Images 0 and 1 have one title in common; the model cannot know which is meant."""
    images = normalise([[1.0, 0, 0], [1.0, 0.1, 0], [0, 0, 1.0]])
    texts = normalise([[1.0, 0.1, 0], [1.0, 0.1, 0], [0, 0, 1.0]])
    result = evaluate_embeddings(images, texts, np.arange(3), numbers=np.array([7, 7, 8]))
    assert result.metrics["t2i/R@1"] == pytest.approx(100 * 2 / 3)  # text 0 finds image 1
    assert result.metrics["t2i_equal/R@1"] == 100
    assert result.metrics["i2t/R@1"] == pytest.approx(100 / 3)  # texts 0 and 1 tie: against the model
    assert result.metrics["i2t_equal/R@1"] == 100
    assert result.metrics["rsum_equal"] > result.metrics["rsum"]


def test_equal_captions_count_within_their_fold_only():
    eye = normalise(np.eye(4)[[1, 0, 2, 3]])
    whole = evaluate_embeddings(np.eye(4), eye, np.arange(4), numbers=np.array([5, 5, 6, 7]))
    assert whole.metrics["i2t_equal/R@1"] == 100
    halves = evaluate_embeddings(np.eye(4), np.eye(4), np.arange(4), numbers=np.array([5, 6, 5, 7]), folds=2)
    assert halves.metrics["i2t_equal/R@1"] == halves.metrics["i2t/R@1"] == 100


def test_captions_that_do_not_repeat_have_no_such_recall():
    result = evaluate_embeddings(np.eye(3), np.eye(3), np.arange(3), numbers=np.arange(3))
    assert not any("equal" in name for name in result.metrics)


def test_captions_are_equal_in_other_case_and_spaces(items):
    twin = replace(items[1], captions=(" A  Red", "the colour green"))
    metrics = evaluate(ColourModel(), [items[0], twin, *items[2:]]).metrics
    assert metrics["t2i_equal/R@1"] > metrics["t2i/R@1"]
