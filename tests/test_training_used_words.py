"""Word rows that no caption uses are not optimised, and nothing comes out otherwise."""

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from training_parts import prepared
from unicross.model import TwoTower
from unicross.training import train, used_words
from unicross.training.cost import tower_cost
from unicross.training.used_words import UsedRows, train_used_words, with_used_words, without_used_words


def test_a_run_learns_the_same_as_with_the_whole_table(photos, tmp_path, monkeypatch):
    recipe = tiny.recipe(photos, tiny.ALIGN, tiny.SHARPEN)
    train(recipe, tmp_path / "rows")
    monkeypatch.setattr(used_words, "WORTH", 0.0)
    train(recipe, tmp_path / "whole")
    rows, whole = (TwoTower.load(tmp_path / name / "best").state_dict() for name in ("rows", "whole"))
    assert rows.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(rows[name], tensor), name


def test_checkpoints_have_plain_tables(photos, tmp_path):
    train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")
    for checkpoint in ("best", "last"):
        table = TwoTower.load(tmp_path / "run" / checkpoint).text.backbone.get_input_embeddings()
        assert isinstance(table, nn.Embedding)


def test_only_rows_in_use_are_parameters_that_move(photos):
    _, model, data = prepared(photos, tiny.ALIGN)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    texts = ["a red square", "words that no caption has: zebra"]
    vectors = model.encode_texts(texts)
    assert train_used_words(model, data.captions)
    table = model.text.backbone.get_input_embeddings()
    assert isinstance(table, UsedRows)
    assert len(table.used) < len(table.base_layer.weight) / 2
    np.testing.assert_array_equal(model.encode_texts(texts), vectors)
    plain = without_used_words(model, model.state_dict())
    assert plain.keys() == before.keys()
    assert all(torch.equal(plain[name], tensor) for name, tensor in before.items())
    table.used.data += 1
    moved = without_used_words(model, model.state_dict())
    name = "text.backbone.embeddings.word_embeddings.weight"
    changed = (moved[name] != before[name]).any(dim=1).nonzero().ravel()
    assert changed.tolist() == data.captions.words().tolist()
    again = with_used_words(model, moved)
    assert again.keys() == model.state_dict().keys()
    assert torch.equal(again["text.backbone.embeddings.word_embeddings.used"], table.used)


DECODER = tiny.BERT | {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    "tower", [{"text": tiny.BERT}, {"text": DECODER, "text_pool": "last"}], ids=["encoder", "decoder"]
)
def test_looking_words_up_costs_nothing(photos, tower):
    """The table is called `word_embeddings` in the one and `embed_tokens` in the other."""
    _, model, data = prepared(photos, tiny.ALIGN, model=tower)
    before = tower_cost(model, 10.0)
    assert train_used_words(model, data.captions)
    assert tower_cost(model, 10.0) == before


def test_a_small_table_is_trained_whole(photos):
    _, model, data = prepared(photos, tiny.ALIGN)
    data.captions._flat = np.arange(60)  # of about a hundred
    assert not train_used_words(model, data.captions)


def test_rows_in_use_live_where_the_table_does():
    """On `meta` all that a GPU would refuse to mix is refused, on any machine."""
    table = nn.Embedding(6, 3, device="meta")
    used = UsedRows(table, torch.tensor([1, 4], device="meta"))
    for training in (True, False):
        assert used.train(training)(torch.tensor([[1, 4]], device="meta")).shape == (1, 2, 3)
