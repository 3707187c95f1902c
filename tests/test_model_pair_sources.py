"""Pairs within folders of sentence-transformers, in the layouts of its versions, against its own vectors."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pretrained import TEXTS, make_pair
from unicross.errors import CheckpointError
from unicross.model import TwoTower

pytestmark = pytest.mark.filterwarnings("ignore")
OLD = "sentence_transformers.models"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_pair("clip", tmp_path_factory.mktemp("pairs") / "clip")


def modules_file(folder, *modules):
    """modules.json of (kind, folder) pairs."""
    content = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(content))


def old_layout(clip, folder):
    """As `sentence-transformers/clip-ViT-B-32` lies on the hub."""
    shutil.copytree(clip, folder / "0_CLIPModel")
    modules_file(folder, (f"{OLD}.CLIPModel", "0_CLIPModel"))


def new_layout(clip, folder):
    """As today's sentence-transformers saves a pair."""
    import sentence_transformers

    sentence_transformers.SentenceTransformer(str(clip), device="cpu").save(str(folder))


@pytest.mark.parametrize("layout", [old_layout, new_layout])
def test_vectors_are_those_of_sentence_transformers(layout, clip, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    folder = tmp_path / "model"
    folder.mkdir()
    layout(clip, folder)
    rng = np.random.default_rng(0)
    pictures = []
    for number, size in enumerate([(61, 43), (40, 90), (20, 25)]):
        pictures.append(tmp_path / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 256, (8, 11, 3), dtype=np.uint8)).resize(size).save(pictures[-1])
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    model = TwoTower.load(folder)
    wanted = theirs.encode([Image.open(path) for path in pictures], normalize_embeddings=True)
    np.testing.assert_allclose(model.encode_images(pictures), wanted, rtol=0, atol=1e-5)
    wanted = theirs.encode(list(TEXTS), normalize_embeddings=True)
    np.testing.assert_allclose(model.encode_texts(TEXTS), wanted, rtol=0, atol=1e-5)


def test_what_comes_after_the_pair_must_not_change_its_vectors(clip, tmp_path):
    shutil.copytree(clip, tmp_path / "0_CLIPModel")
    clip_module = (f"{OLD}.CLIPModel", "0_CLIPModel")
    modules_file(tmp_path, clip_module, (f"{OLD}.Normalize", "1_Normalize"))
    assert TwoTower.load(tmp_path).dim == 24
    modules_file(tmp_path, clip_module, (f"{OLD}.Dense", "1_Dense"))
    with pytest.raises(CheckpointError, match=r"changes a pair's vectors \(Dense\)"):
        TwoTower.load(tmp_path)
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"modules.json: cannot be read"):
        TwoTower.load(tmp_path)


def test_a_text_model_of_sentence_transformers_is_no_pair(tmp_path):
    from transformers import BertConfig, BertModel

    import tiny

    BertModel(BertConfig(**tiny.SMALL, vocab_size=50)).save_pretrained(tmp_path / "0_Transformer")
    modules_file(tmp_path, (f"{OLD}.Transformer", "0_Transformer"), (f"{OLD}.Pooling", "1_Pooling"))
    with pytest.raises(CheckpointError, match="'bert' is no pair of an image and a text tower"):
        TwoTower.load(tmp_path)
