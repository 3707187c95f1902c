"""What makes training fast changes nothing that is computed, and no step waits for the GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from unicross.model.kernels import SDPA, TilesAsProduct, prefer_fast_kernels
from unicross.training import loop, train


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


def test_pictures_on_gpus_hide_nothing_from_attention(monkeypatch):
    """A mask, even one that hides nothing, keeps PyTorch from its fastest kernels."""
    model, masks = tiny.model(), []
    prefer_fast_kernels(model, torch.device("cuda"))
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, **kwargs):
        masks.append(attn_mask)
        return plain(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model.image(pixel_values=torch.randn(2, 3, 32, 32))
    assert masks == [None, None]  # layers


@pytest.mark.parametrize("side", [16, 18])  # 18: the last two pixels are in no tile
def test_patches_as_a_product_are_those_of_the_convolution(side):
    model = tiny.model()
    patches = next(module for module in model.image.modules() if isinstance(module, torch.nn.Conv2d))
    pictures = torch.randn(2, 3, side, side, dtype=torch.float64)
    patches.double()
    names, made, gradients = list(model.state_dict()), [], []
    for _ in range(2):
        made.append(patches(pictures))
        gradients.append(torch.autograd.grad(made[-1].square().sum(), list(patches.parameters())))
        prefer_fast_kernels(model, torch.device("cpu"))
    assert type(patches) is TilesAsProduct
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert list(model.state_dict()) == names


def test_convolutions_that_overlap_stay_what_they_are():
    model = tiny.model()
    model.image.backbone.stem = torch.nn.Conv2d(3, 4, kernel_size=4, stride=2)
    prefer_fast_kernels(model, torch.device("cpu"))
    assert type(model.image.backbone.stem) is torch.nn.Conv2d


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("micro", [None, 3])
def test_no_step_waits_for_the_gpu(tmp_path, monkeypatch, micro):
    views = {"image": {"blur": 0.5, "jitter": 0.5, "grey": 0.5}, "captions": 2}
    one = loop.Loop._step
    steps = []

    def watched(self, *args):
        steps.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(steps) > 1 else "default")  # the first one warms up
        try:
            return one(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop.Loop, "_step", watched)
    recipe = tiny.recipe(
        tiny.write_set(tmp_path / "set"), tiny.SHARPEN, views=views, train={"micro_batch": micro}
    )
    train(recipe, tmp_path / "run", device="cuda")
    assert len(steps) == 3
