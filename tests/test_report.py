"""The report of faked runs on a small demo set: what it shows, that it stands alone, what it leaves out."""

import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from unicross.compare import Steps, compare
from unicross.compare.table import RecipeRow, difference_text, spread_text
from unicross.data.items import Items
from unicross.data.load import load_items
from unicross.demo.scenes import write_demo_set
from unicross.errors import DataError
from unicross.evaluation import evaluate_embeddings
from unicross.recipe import dump_recipe
from unicross.report import write_report
from unicross.report.contents import Variant, collect
from unicross.report.examples import Album, confused_captions, contest, spread_clusters
from unicross.result import Direction, Result
from unicross.training.rounds import Clusters

TRAIN, VAL, DIM = 40, 24, 8


def fake_train(recipe, folder, resume):
    assert not resume
    (folder / "last").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    clustered = recipe.stages[-1].batches.kind == "clustered"
    cost, events = 2 if clustered else 1, []
    for epoch in range(recipe.epochs):
        if clustered:
            figures = {"hardness": 0.3, "hardness_random": 0.1, "masked": 0.02}
            events.append({"kind": "round", "epoch": epoch, "step": 5 * epoch, **figures})
        events += [
            {"kind": "step", "step": 5 * epoch + i, "loss/image_text": 3.0 - epoch / 9} for i in range(5)
        ]
        found = {"i2t/R@1": 10.0 + epoch, "t2i/R@1": 8.0 + epoch, "rsum": 100.0 + epoch}
        events.append({"kind": "eval", "epoch": epoch + 1, "compute": cost * (epoch + 1), **found})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if clustered:
        rng = np.random.default_rng(0)
        tensors = {
            f"round.{name}": rng.normal(size=(TRAIN, DIM)).astype(np.float16) for name in ("image", "text")
        }
        tensors["round.cluster"] = np.arange(TRAIN) // 8
        save_file(tensors, folder / "last" / "training.safetensors")
    spent = cost * recipe.epochs
    summary = {
        "metrics": found,
        "forwards": {"image": 1000 * spent, "text": 5000},
        "compute": spent,
        "minutes": 1.5,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def fake_evaluate(recipe, folder):
    del folder
    items = load_items(recipe.data.root, "val").items
    rng = np.random.default_rng(recipe.seed + 10 * recipe.epochs)
    images = rng.normal(size=(len(items), 16))
    text_image = np.repeat(np.arange(len(items)), [len(item.captions) for item in items])
    noise = 1.0 if recipe.stages[-1].batches.kind == "clustered" else 1.4
    texts = images[text_image] + noise * rng.normal(size=(len(text_image), 16))
    return evaluate_embeddings(images, texts, text_image, item_ids=[item.id for item in items])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison's folder at equal compute, two recipes and seeds."""
    root = tmp_path_factory.mktemp("report")
    write_demo_set(root / "demo", TRAIN, VAL, seed=0, side=48)
    table = root / "demo" / "captions.csv"
    table.write_text(table.read_text().replace(" on ", " <i>on & on</i> "))
    recipes = []
    for name, kind in (("plain", "random"), ("hard", "clustered")):
        recipe = {
            "model": {"image": "tiny", "text": "tiny"},
            "data": {"root": str(root / "demo")},
            "stages": [{"name": "s", "epochs": 3, "losses": {"image_text": 1}, "batches": {"kind": kind}}],
        }
        recipes.append(root / f"{name}.yaml")
        recipes[-1].write_text(yaml.safe_dump(recipe))
    compare(
        recipes,
        [0, 1],
        root / "out",
        match="compute",
        steps=Steps(fake_train, fake_evaluate, fake_evaluate, lambda _: None),
    )
    return root


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made / "out", tmp_path / "out")


class Page(HTMLParser):
    """What a page links to, its text, its headings and pictures."""

    def __init__(self, path):
        super().__init__()
        self.links, self.tags, self.headings, self.text = [], [], [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.pictures = self.tags.count("img")

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for name, v in attributes if name in ("src", "href", "xlink:href", "srcset") and v]
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_data(self, data):
        self.text += data
        if self.tags and self.tags[-1] in ("h1", "h2"):
            self.headings[-1] += data.strip()


def test_comparison_shows_every_part(folder):
    page = Page(write_report(folder))
    assert page.headings == [
        "hard against plain",
        "Learning",
        "Recall against compute",
        "Rounds of clustered batches",
        "Clusters of the last round",
        "Found by one, missed by the other",
        "Hardest confusions of hard",
        "Recipes",
    ]
    plain, longer, hard = collect(folder).comparison.rows
    assert longer.label == "plain (equal compute)"
    for row in (plain, longer, hard):
        assert spread_text(row.metrics["rsum"]) in page.text
    for other in ("plain", "plain (equal compute)"):
        assert difference_text(hard.against[other]["rsum"]) in page.text
    assert page.pictures > 20
    assert "cluster 0 (8 items)" in page.text
    assert "hard − plain (equal compute)" in page.text


def test_languages_and_fields_have_a_table(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    comparison = json.loads((whole / "comparison.json").read_text())
    for number, row in enumerate(comparison["rows"]):
        for name in ("t2i_de", "t2i_en", "t2t_de_en", "t2i_equal"):
            row["metrics"][f"{name}/R@1"] = {"mean": 61.5 + number, "sd": None}
    (whole / "comparison.json").write_text(json.dumps(comparison))
    page = Page(write_report(whole))
    assert "Languages and fields" in page.headings
    for shown in ("text to image, de", "text to text, de to en", "61.5", "62.5", "63.5"):
        assert shown in page.text
    assert "text to image, equal" not in page.text
    assert "Languages and fields" not in Page(write_report(folder)).headings


def test_page_stands_alone_and_follows_the_theme(folder):
    page = Page(write_report(folder))
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in page.source
    assert "currentColor" in page.source
    assert "#010203" not in page.source


def test_captions_are_escaped(folder):
    source = write_report(folder).read_text()
    assert "<i>on" not in source
    assert "&lt;i&gt;on &amp; on&lt;/i&gt;" in source


def test_same_folder_same_page(folder, tmp_path):
    assert write_report(folder).read_text() == write_report(folder, tmp_path / "new" / "r.html").read_text()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.html"]


def test_single_run(folder):
    run = folder / collect(folder).comparison.rows[2].runs[0]
    page = Page(write_report(run))
    assert page.headings == [
        run.name,
        "Learning",
        "Recall against compute",
        "Rounds of clustered batches",
        "Clusters of the last round",
        f"Hardest confusions of {run.name}",
        "Recipes",
    ]


def test_run_that_is_not_evaluated_nor_clustered_nor_finished(folder):
    run = folder / collect(folder).comparison.rows[0].runs[0]
    (run / "evaluation.json").unlink()
    (run / "summary.json").unlink()
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "eval", "rsu')  # cut short by a kill
    page = Page(write_report(run))
    assert page.headings == [run.name, "Learning", "Recall against compute", "Confusions", "Recipes"]
    assert "unicross evaluate" in page.text
    assert "102.0" in page.text  # the best rSum of the log
    assert not page.pictures


def test_run_that_has_only_begun(folder):
    run = folder / collect(folder).comparison.rows[0].runs[0]
    for name in ("evaluation.json", "summary.json", "metrics.jsonl"):
        (run / name).unlink()
    assert Page(write_report(run)).headings == [run.name, "Confusions", "Recipes"]


def test_data_that_are_gone_cost_only_the_pictures(made, folder):
    (made / "demo").rename(made / "moved")
    try:
        page = Page(write_report(folder))
    finally:
        (made / "moved").rename(made / "demo")
    assert "No pictures are shown, because the data cannot be read" in page.text
    assert "Recall against compute" in page.headings
    assert not page.pictures


def test_some_other_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither a run folder"):
        write_report(tmp_path)


# Two images with two captions each; ranks and rivals by hand.
IDS = ("cat", "dog")


def variant(label, *t2i_ranks):
    results = []
    for ranks in t2i_ranks:
        ranks = np.array(ranks)
        results.append(
            Result(
                metrics={},
                item_ids=IDS,
                image_item=np.arange(2),
                text_item=np.array([0, 0, 1, 1]),
                ways={
                    "i2t": Direction(np.ones(2, np.int64), np.array([2, 0]), np.ones(2, np.float32)),
                    "t2i": Direction(
                        ranks,
                        np.array([1, 1, 0, 0]),
                        np.where(ranks > 1, -ranks / 100, 0.1).astype(np.float32),
                    ),
                },
            )
        )
    row = RecipeRow(
        label=label,
        recipe="",
        epochs=1,
        runs=(),
        metrics={},
        image_forwards=0,
        text_forwards=0,
        compute=0,
        minutes=0,
        against={},
    )
    return Variant(row, tuple(type("R", (), {"result": result})() for result in results))


class Named(Album):
    """Pictures stand for themselves by name."""

    def __init__(self):
        super().__init__(Items.of([]))

    def thumbnail(self, id, number=0):
        return id if number == 0 else f"{id} {number}"

    def caption(self, id, number=0):
        return f"{id} {number}"


def test_contest_counts_and_chooses():
    a = variant("a", [1, 20, 30, 2], [1, 40, 30, 1])  # medians 1, 30, 30, 1.5
    b = variant("b", [1, 1, 2, 2], [1, 1, 2, 20])  # medians 1, 1, 2, 11
    found = contest(a, b, Named())
    assert (found.both, found.only_a, found.only_b, found.neither) == (1, 0, 1, 2)
    shown = [[part.text or part.image for part in example] for example in found.b_wins]
    assert shown == [["cat 1", "cat", "dog"], ["dog 0", "dog", "cat"]]
    assert found.b_wins[0][1].note == "rank 1 by b, 30 by a"
    assert found.b_wins[0][2].note == "preferred by a"
    assert [example[0].text for example in found.a_wins] == ["dog 1"]


def test_confusions_are_the_worst_and_no_pair_twice():
    confused = confused_captions(variant("a", [1, 20, 30, 2]), Named())
    assert [[part.text or part.image for part in example] for example in confused] == [
        ["dog 0", "dog", "cat"]
    ]


def test_shown_clusters_lie_far_apart():
    centres = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0.9, 0.1], [0, 0, 1]], dtype=np.float32)
    vectors = np.repeat(centres, 3, axis=0)
    clusters = Clusters(vectors, vectors, np.repeat(np.arange(5), 3))
    assert sorted(spread_clusters(clusters, 3)) == [0, 2, 4]
    assert len(spread_clusters(clusters, 99)) == 5
