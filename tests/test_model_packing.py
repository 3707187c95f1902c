"""Text towers that see texts end to end: which can, and what they make of them."""

import numpy as np
import pytest
import torch

from tiny import DISTIL, SMALL
from unicross.config import ModelConfig
from unicross.model import packing
from unicross.model.backbones import text_backbone
from unicross.model.packing import can_pack, packed_features
from unicross.model.pooling import Fit
from unicross.model.tower import Tower

ENDS = {"bos_token_id": 1, "eos_token_id": 2}


def tower(model_type, pool="mean", **config):
    torch.manual_seed(0)
    backbone = text_backbone({"model_type": model_type} | (config or SMALL), 100)
    return Tower(backbone, Fit(pool, width=32), ModelConfig(image="", text="", dim=8)).eval()


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize(
    ("model_type", "config"),
    [("bert", {}), ("roberta", {}), ("electra", SMALL | {"embedding_size": 32}), ("distilbert", DISTIL)],
)
def test_packed_texts_have_the_features_of_padded_ones(model_type, config, pool):
    text = tower(model_type, pool, **config)
    assert can_pack(text)
    lengths = np.array([2, 3, 3, 9])
    mask = torch.from_numpy((np.arange(9) < lengths[:, None]).astype(np.int64))
    padding = text.backbone.config.pad_token_id
    ids = torch.where(mask > 0, torch.randint(5, 100, mask.shape), padding)
    implementation = text.backbone.config._attn_implementation
    wanted = text(input_ids=ids, mask=mask)
    for groups in ([lengths], [lengths[:3], lengths[3:]]):
        found = packed_features(text, ids, mask, groups)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert text.backbone.config._attn_implementation == implementation
    assert torch.equal(text(input_ids=ids, mask=mask), wanted)  # as before


@pytest.mark.parametrize(
    ("model_type", "pool", "config"),
    [
        ("bert", "pooler", {}),
        ("mpnet", "mean", {}),  # relative positions, and an attention of its own
        ("clip_text_model", "mean", SMALL | ENDS),  # looks back only
        ("modernbert", "mean", SMALL | ENDS | {"cls_token_id": 1, "sep_token_id": 2}),  # rotary positions
    ],
)
def test_towers_in_which_more_than_attention_looks_along_a_text_do_not_pack(model_type, pool, config, capfd):
    text = tower(model_type, pool, **config).train()
    capfd.readouterr()
    assert not can_pack(text)
    assert capfd.readouterr().err == ""  # nothing for the user to worry about
    assert text.training
    text(input_ids=torch.full((2, 4), 7), mask=torch.ones(2, 4, dtype=torch.int64))  # still works


def test_a_probe_leaves_nothing_behind():
    text = tower("clip_text_model", **SMALL, **ENDS)
    before = text.backbone.config._attn_implementation
    can_pack(text)
    assert text.backbone.config._attn_implementation == before
    assert not any(module._forward_hooks for module in text.modules())


def test_attention_dropout_is_drawn_where_the_tower_trains():
    text = tower("bert", **SMALL, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    ids, mask = torch.full((2, 4), 7), torch.ones(2, 4, dtype=torch.int64)
    assert can_pack(text.train())
    one, other = (packed_features(text, ids, mask, [np.array([4, 4])]) for _ in range(2))
    assert not torch.equal(one, other)


def by_text(q, k, v, starts, starts_again, longest, longest_again):
    """What the kernel for texts of unlike lengths computes, text by text: [T, A, d]."""
    assert starts.dtype == torch.int32
    assert starts_again is starts
    assert longest == longest_again == int(starts.diff().max())
    cut = [part.split(starts.diff().tolist()) for part in (q, k, v)]
    mixed = [
        torch.nn.functional.scaled_dot_product_attention(*(part.transpose(0, 1) for part in parts))
        for parts in zip(*cut, strict=True)
    ]
    return torch.cat([part.transpose(0, 1) for part in mixed])


def test_the_kernel_for_unlike_lengths_is_told_where_texts_begin(monkeypatch):
    text = tower("bert")
    lengths = np.array([2, 3, 3, 9])
    mask = torch.from_numpy((np.arange(9) < lengths[:, None]).astype(np.int64))
    ids = torch.randint(5, 100, mask.shape) * mask
    wanted = packed_features(text, ids, mask, [lengths])
    calls = []
    monkeypatch.setattr(packing, "_has_kernel", lambda _: True)
    monkeypatch.setattr(packing, "_fits_kernel", lambda _: True)
    monkeypatch.setattr(packing, "varlen_attn", lambda *told: calls.append(1) or by_text(*told))
    found = packed_features(text, ids, mask, [lengths[:3], lengths[3:]])
    assert len(calls) == 2  # layers
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("device", "capability", "has"), [("cpu", None, 0), ("cuda", (7, 5), 0), ("cuda", (8, 0), 1)]
)
def test_gpus_before_ampere_are_spared_the_kernel(monkeypatch, device, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert packing._has_kernel(torch.device(device)) == bool(has)


def test_compiled_layers_take_packs_of_any_lengths_in_one_graph():
    text = tower("bert")
    batches = [
        [np.array(group) for group in groups] for groups in (((2, 3), (9,)), ((3, 3), (7,)), ((2, 5), (8,)))
    ]
    found = []
    for compiled in (False, True):
        if compiled:
            torch.compiler.reset()
            for layer in text.backbone.encoder.layer:
                layer.compile(dynamic=True, fullgraph=True, backend="eager")
        for number, groups in enumerate(batches):
            lengths = np.concatenate(groups)
            mask = torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64))
            ids = torch.arange(7, 7 + mask.numel()).reshape(mask.shape) * mask
            seen = "fail_on_recompile" if compiled and number > 0 else "default"
            with torch.no_grad(), torch.compiler.set_stance(seen):
                found.append(packed_features(text, ids, mask, groups))
    for eager, compiled in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)
