"""The model: embeddings, what they do not depend on, and checkpoints that need nothing else."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

import tiny
from unicross.device import autocast, pick_device
from unicross.errors import CheckpointError, DataError, RecipeError
from unicross.model import TwoTower
from unicross.model.kernels import prefer_fast_kernels
from unicross.model.parts import MAX_SCALE
from unicross.model.tokenizer import train_tokenizer

TEXTS = [
    "a red square",
    "something blue at the top of a brown ground",
    "red",
    "a square block, grey and white",
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny.model(TEXTS)


@pytest.fixture
def exact(monkeypatch):
    """Inference in float32, whatever the processor multiplies natively."""
    monkeypatch.setattr("unicross.model.inference.autocast", lambda device, _: autocast(device, "fp32"))


def pictures(count=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + 9 * n, 50, 3), dtype=np.uint8) for n in range(count)]


def test_embeddings_are_unit_float32_rows(model):
    for found, count in ((model.encode_texts(TEXTS), 4), (model.encode_images(pictures()), 3)):
        assert found.shape == (count, model.dim) == (count, 16)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_a_small_view_has_whole_patches(model):
    model = tiny.model(TEXTS, image_size=36, image=tiny.VIT | {"patch_size": 8})
    assert [model.view_side(size) for size in (1.0, 0.99, 0.5, 0.3, 0.01)] == [36, 32, 16, 8, 8]


def test_nothing_embeds_as_nothing(model):
    assert model.encode_texts([]).shape == model.encode_images([]).shape == (0, 16)


def test_an_empty_text_has_an_embedding(model):
    assert np.isfinite(model.encode_texts([""])).all()


@pytest.mark.parametrize("pool", ["cls", "mean", "pooler"])
@pytest.mark.usefixtures("exact")
def test_padding_does_not_change_a_text(pool):
    model = tiny.model(TEXTS, text_pool=pool)
    together = model.encode_texts(TEXTS)
    alone = np.concatenate([model.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-6)


@pytest.mark.usefixtures("exact")
def test_embeddings_come_in_the_order_asked(model):
    whole = model.encode_texts(TEXTS, batch_size=3)
    np.testing.assert_allclose(model.encode_texts(TEXTS[::-1], batch_size=2)[::-1], whole, atol=2e-6)
    images = model.encode_images(pictures(5), batch_size=2)
    np.testing.assert_allclose(model.encode_images(pictures(5)[::-1])[::-1], images, atol=2e-6)


def test_pooling_follows_its_definition():
    tokens = tiny.model(TEXTS).tokenizer(TEXTS, padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    for pool in ("cls", "mean", "pooler"):
        tower = tiny.model(TEXTS, text_pool=pool).text
        output = tower.backbone(input_ids=ids, attention_mask=mask)
        hidden = output.last_hidden_state
        wanted = {
            "cls": hidden[:, 0],
            "mean": torch.stack([row[: int(m.sum())].mean(0) for row, m in zip(hidden, mask, strict=True)]),
            "pooler": output.pooler_output,
        }[pool]
        torch.testing.assert_close(tower(input_ids=ids, mask=mask), wanted, rtol=1e-5, atol=1e-6)


def test_long_texts_are_cut(model):
    long = " ".join(["red"] * 100)
    assert (model.encode_texts([long]) == model.encode_texts([" ".join(["red"] * 60)])).all()


def test_pictures_of_every_kind_are_taken(model, tmp_path):
    array = pictures(1)[0]
    picture = Image.fromarray(array)
    picture.save(tmp_path / "a.png")
    kinds = [array, picture, tmp_path / "a.png", str(tmp_path / "a.png")]
    found = model.encode_images(kinds)
    np.testing.assert_allclose(found, np.repeat(found[:1], 4, axis=0), atol=1e-6)
    with pytest.raises(DataError, match="missing"):
        model.encode_images([tmp_path / "missing.png"])


def test_one_text_instead_of_a_list_is_refused(model):
    with pytest.raises(DataError, match="a list of texts"):
        model.encode_texts("a red square")


def test_encoding_leaves_the_mode_as_it_was_and_ignores_dropout():
    model = tiny.model(TEXTS, dropout=0.5)
    once = model.encode_texts(TEXTS)
    model.train()
    assert (model.encode_texts(TEXTS) == once).all()
    assert model.training
    assert model.text.backbone.training
    model.eval().encode_texts(TEXTS)
    assert not model.training


def test_a_model_at_rest_is_not_switched_at_each_query(monkeypatch):
    model = tiny.model(TEXTS, dropout=0.5).eval()
    switched = []
    monkeypatch.setattr(torch.nn.Module, "train", lambda module, mode=True: switched.append(mode) or module)
    model.encode_texts(TEXTS)
    assert not switched


def test_dropout_is_off_where_only_a_tower_trains():
    model = tiny.model(TEXTS, dropout=0.5).eval()
    model.text.train()
    first, second = model.encode_texts(TEXTS), model.encode_texts(TEXTS)
    assert (first == second).all()


@pytest.mark.parametrize("dropout", [None, 0.0, 0.4])
def test_dropout_of_the_text_tower_is_what_the_recipe_says(dropout):
    model = tiny.model(TEXTS, dropout=dropout)
    found = {m.p for m in model.text.backbone.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {0.1 if dropout is None else dropout}


def test_temperature_begins_as_asked_and_never_falls_below_a_hundredth():
    model = tiny.model(temperature=0.05)
    assert model.scale.item() == pytest.approx(20)
    model.log_scale.data.fill_(math.log(500))
    assert model.scale.item() == pytest.approx(MAX_SCALE)
    model.clamp_temperature()
    model.scale.backward()
    assert model.log_scale.grad is not None
    assert model.log_scale.grad > 0  # on its bound the temperature can still rise


def test_uni_heads_are_their_own_or_shared():
    own, shared = tiny.model(uni_dim=5), tiny.model(uni_heads="shared")
    pooled = torch.rand(2, 32)
    assert own.image.embed_uni(pooled).shape == (2, 5)
    assert torch.equal(shared.image.embed_uni(pooled), shared.image.embed(pooled))
    assert not any("uni" in name for name, _ in shared.named_parameters())


# -- checkpoints ------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(tmp_path):
    """Folders of a pretrained image and text tower, as from a hub."""
    torch.manual_seed(1)
    source = tiny.model(TEXTS)
    for name in ("image", "text"):
        backbone = AutoModel.from_config(getattr(source, name).backbone.config)
        backbone.save_pretrained(tmp_path / "hub" / name)
    train_tokenizer(TEXTS, 200).save_pretrained(tmp_path / "hub" / "text")
    own = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (tmp_path / "hub" / "image" / "preprocessor_config.json").write_text(json.dumps(own))
    return tmp_path / "hub"


def test_a_checkpoint_needs_nothing_but_itself(pretrained, tmp_path):
    """Towers from folders, resized; the folders are gone when it is loaded; the same to the last bit."""
    model = tiny.model(
        image=str(pretrained / "image"), text=str(pretrained / "text"), image_size=48, dropout=0.2
    )
    wanted = model.encode_texts(TEXTS), model.encode_images(pictures())
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    shutil.rmtree(pretrained)
    shutil.move(tmp_path / "kept", tmp_path / "elsewhere")
    loaded = TwoTower.load(tmp_path / "elsewhere")
    assert not loaded.training
    assert (loaded.encode_texts(TEXTS) == wanted[0]).all()
    assert (loaded.encode_images(pictures()) == wanted[1]).all()
    assert loaded.fingerprint() == model.fingerprint()
    assert loaded.config == model.config
    assert loaded.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert {p.suffix for p in (tmp_path / "elsewhere").rglob("*") if p.is_file()} == {".json", ".safetensors"}


def test_a_fingerprint_follows_weights_and_settings(model, tmp_path):
    print_of = model.fingerprint()
    assert len(print_of) == 16
    assert model.fingerprint() == print_of
    model.save(tmp_path)
    other = TwoTower.load(tmp_path)
    with torch.no_grad():
        other.text.cross.weight[0, 0] += 1e-6
    assert other.fingerprint() != print_of
    settings = json.loads((tmp_path / "model.json").read_text())
    settings["max_tokens"] += 1
    (tmp_path / "model.json").write_text(json.dumps(settings))
    assert TwoTower.load(tmp_path).fingerprint() != print_of


def test_one_text_or_picture_is_not_a_list_of_them(model):
    for encode, one in ((model.encode_texts, "a dog"), (model.encode_images, "dog.jpg")):
        with pytest.raises(DataError, match=r"takes a list .*into a list"):
            encode(one)
    with pytest.raises(DataError, match="takes texts, got None"):
        model.encode_texts([None])


def test_a_run_folder_loads_its_best(model, tmp_path):
    (tmp_path / "best").mkdir()
    model.save(tmp_path / "best")
    assert TwoTower.load(str(tmp_path)).fingerprint() == model.fingerprint()


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a checkpoint \(no model\.json in it\), nor a run folder"):
        TwoTower.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", "{"),
        ("model.json", "[]"),
        ("model.json", "{}"),
        ("model.json", '{"model": {"image": 3}, "max_tokens": 3, "mean": [], "std": []}'),
        ("model.safetensors", "short"),
        ("model.safetensors", None),
        ("image/config.json", "{}"),
        ("image/config.json", None),
        ("text/config.json", json.dumps(tiny.VIT)),
        ("text/tokenizer.json", "{"),
        ("text/tokenizer.json", None),
    ],
)
def test_damaged_checkpoints_are_sentences(model, tmp_path, name, content):
    model.save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        TwoTower.load(tmp_path)


def test_weights_of_another_model_are_a_sentence(model, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model.save(tmp_path / "a")
    tiny.model(TEXTS, dim=8).save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"the checkpoint cannot be read: .*size mismatch") as caught:
        TwoTower.load(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_devices_that_are_not_there_are_sentences():
    assert pick_device("cpu").type == "cpu"
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "cuda:99"):
        with pytest.raises(RecipeError, match=f"device '{name}' cannot be used here: .*; cpu always can"):
            pick_device(name)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 0.02)])
@pytest.mark.parametrize("packs", [False, True])
def test_alone_or_among_others_a_vector_has_the_cosines_that_the_docstring_promises(
    monkeypatch, precision, bound, packs
):
    """Of pictures, and of texts from two tokens to the most, whatever the model uses while training."""
    monkeypatch.setattr("unicross.model.inference.autocast", lambda device, _: autocast(device, precision))
    words = " ".join(TEXTS).split()
    texts = [" ".join(words[:count]) for count in (1, 2, 3, 5, 8, 13, 20, 40)]
    model = tiny.model(TEXTS)
    if packs:
        prefer_fast_kernels(model, model.device)
    for encode, things in ((model.encode_texts, texts), (model.encode_images, pictures(8))):
        together = encode(things)
        alone = np.concatenate([encode([thing]) for thing in things])
        by_three = encode(things[::-1], batch_size=3)[::-1]
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        for others in (alone, by_three):
            np.testing.assert_allclose(others @ together.T, together @ together.T, atol=bound, rtol=0)
