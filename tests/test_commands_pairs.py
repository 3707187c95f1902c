"""A pretrained pair wherever the command line takes a model: no training, no recipe, no flags."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pretrained import ALL, make_pair
from unicross.cli import app
from unicross.search import open_model
from unicross.store import open_store


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair("clip", tmp_path_factory.mktemp("pair") / "clip")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_pair_is_evaluated_on_all_items_or_a_split(pair, photos):
    result = run("evaluate", pair, f"data.root={photos}", "--json")
    assert json.loads(result.stdout)["n_images"] == 32
    assert "shorter edge" in result.stderr
    split = run("evaluate", pair, f"data.root={photos}", "data.split.val=val", "--json")
    assert json.loads(split.stdout)["n_images"] == 8
    assert "say which with data.root=" in str(run("evaluate", pair, code=1).exception or "")


def test_one_command_indexes_and_serves(pair, photos, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr("unicross.commands.serve.serve", served.append)
    run("index", pair, photos, "--store", tmp_path / "store", "--serve")
    assert served == [str(tmp_path / "store")]


def test_a_pair_is_exported(pair, tmp_path):
    said = run("export", pair, tmp_path / "out", "--to", "sentence-transformers")
    assert "README.md says how to load it" in said.stdout
    assert (tmp_path / "out" / "modules.json").is_file()


def test_a_pair_indexes_and_its_store_is_searched(pair, photos, tmp_path):
    store = tmp_path / "store"
    run("index", pair, photos, "--store", store)
    by_words = json.loads(run("search", store, "a red square", "-k", "3", "--json").stdout)
    assert len(by_words) == 3
    picture = photos / "images" / "000.png"
    (itself,) = json.loads(run("search", store, "--image", picture, "-k", "1", "--json").stdout)
    assert itself["path"] == str(picture)
    assert itself["score"] == pytest.approx(1, abs=1e-5)
    run("embed", pair, photos, "--out", tmp_path / "vectors")
    run("store", "rebuild", tmp_path / "vectors", tmp_path / "again")
    again = run("search", tmp_path / "again", "a red square", "-k", "3", "--json")
    assert json.loads(again.stdout) == by_words


@pytest.mark.parametrize("family", [*ALL, "naflex"])
@pytest.mark.filterwarnings("ignore:.*BlipModel")
def test_every_family_evaluates_untrained_is_indexed_and_served(family, photos, tmp_path):
    TestClient = pytest.importorskip("fastapi.testclient").TestClient
    from unicross.serve.app import create_app

    pair = make_pair(family, tmp_path / "pair")
    result = run("evaluate", pair, f"data.root={photos}", "data.split.val=val", "--json")
    assert "[transformers]" not in result.stderr
    found = json.loads(result.stdout)
    assert found["n_images"] == 8
    assert found["n_captions"] == 24
    run("index", pair, photos, "--store", tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    model = open_model(store)
    with TestClient(create_app(model, store), base_url="http://localhost") as client:
        by_words = client.get("/search", params={"q": "a red square", "k": 32}).json()["hits"]
        picture = photos / "images" / "007.png"
        (itself,) = client.post("/search", params={"k": 1}, content=picture.read_bytes()).json()["hits"]
        assert client.get(f"/images/{itself['picture']}").status_code == 200
    assert itself["score"] == pytest.approx(1, abs=1e-5)
    vectors = model.encode_images([photos / "images" / hit["path"].rsplit("/", 1)[-1] for hit in by_words])
    scores = (vectors @ model.encode_texts(["a red square"]).T)[:, 0]
    np.testing.assert_allclose([hit["score"] for hit in by_words], scores, atol=1e-5)
