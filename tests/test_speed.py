"""What makes training fast changes nothing that is computed, and no step waits for the GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from unicross.training import loop, train
from unicross.training.speed import SDPA


class Reads(TorchDispatchMode):
    """Counts the times that Python asks for the value of a tensor, for which it would wait on a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("padded", [True, False])
def test_attention_on_gpus_computes_the_same_without_a_look_at_the_mask(padded):
    model = tiny.model()
    ids, mask = torch.arange(21).view(3, 7) + 5, torch.ones(3, 7, dtype=torch.int64)
    if padded:
        mask[0, 4:] = 0
    found = {}
    for kind in ("sdpa", SDPA):
        model.text.backbone.set_attn_implementation(kind)
        with torch.no_grad(), Reads() as reads:
            found[kind] = model.text(input_ids=ids, mask=mask), reads.count
    torch.testing.assert_close(found[SDPA][0], found["sdpa"][0])
    assert found[SDPA][1] == 0
    assert found["sdpa"][1] > 0  # what this is about; where it is 0, transformers' own will do


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("micro", [None, 3])
def test_no_step_waits_for_the_gpu(tmp_path, monkeypatch, micro):
    views = {"image": {"blur": 0.5, "jitter": 0.5, "grey": 0.5}, "pictures": 2, "captions": 2}
    one = loop._Loop._step
    steps = []

    def watched(self, *args):
        steps.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(steps) > 1 else "default")  # the first one warms up
        try:
            return one(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop._Loop, "_step", watched)
    recipe = tiny.recipe(
        tiny.write_set(tmp_path / "set"), tiny.SHARPEN, views=views, train={"micro_batch": micro, "ema": 0.9}
    )
    train(recipe, tmp_path / "run", device="cuda")
    assert len(steps) == 3
