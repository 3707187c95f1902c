"""What a GPU computes is what the CPU does: gradients, micro-batches, compiled and sharded layers, runs."""

import contextlib
import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist

import tiny
from training_parts import ALL, CPU, batch_of, prepared
from unicross.device import autocast
from unicross.model import packing
from unicross.model.kernels import compile_layers, prefer_fast_kernels
from unicross.training import train
from unicross.training.batch import Sender
from unicross.training.sharding import full_tensors, shard
from unicross.training.step import backward

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # compilers warn of much
]
GPU = torch.device("cuda", 0)
VIEWS = {"image": {"blur": 0.5, "jitter": 0.5, "grey": 0.5}, "captions": 2}


def step_on(device, photos, *, compiled=False, micro=None, sharded=False, precision="fp32"):
    """Losses and gradients of the same step on a device."""
    recipe, model, data = prepared(photos, ALL, alone=2, model={"dropout": 0}, views=VIEWS)
    items, stage = np.array([0, 24, 1, 2, 25, 3, 4, 26, 5]), recipe.stages[0]
    batch = batch_of(data, items, stage)
    masked = torch.zeros(batch.pairs, batch.pairs, dtype=torch.bool)
    masked[0, 1] = True
    batch = dataclasses.replace(batch, masked=masked)
    prefer_fast_kernels(model, device)
    if sharded:
        shard(model, device)
    model.to(device).train()
    if compiled:
        compile_layers(model)
    done = backward(model, Sender(device)(batch)(), stage, partial(autocast, device, precision), micro)
    found = full_tensors({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    return {name: loss.cpu() for name, loss in done.losses.items()}, {n: g.cpu() for n, g in found.items()}


def assert_same(found, wanted):
    for mine, other in zip(found, wanted, strict=True):
        assert mine.keys() == other.keys()
        for name, tensor in other.items():
            torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("micro", [None, 3])
def test_a_step_is_that_of_the_cpu(photos, compiled, micro):
    assert_same(step_on(GPU, photos, compiled=compiled, micro=micro), step_on(CPU, photos))


def test_half_precision_goes_the_same_way(photos, monkeypatch):
    """With the kernel for texts of unlike lengths: the gradients point where the CPU's in float32 do."""
    calls, kernel = [], packing.varlen_attn
    monkeypatch.setattr(packing, "varlen_attn", lambda *told: calls.append(1) or kernel(*told))
    losses, found = step_on(GPU, photos, precision="bf16")
    wanted_losses, wanted = step_on(CPU, photos)
    assert calls
    for name, value in wanted_losses.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=2e-2)
    for name, gradient in wanted.items():
        if gradient.norm() > 1e-4:
            cosine = torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
            assert cosine > 0.98, name


@contextlib.contextmanager
def alone_in_a_group(folder):
    store = dist.FileStore(str(folder / "store"), 1)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1, device_id=GPU)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("micro", [None, 3])
def test_sharded_weights_get_the_gradients_of_whole_ones(photos, tmp_path, compiled, micro):
    """Over NCCL, by a group of one: gathering, summing and compiling run; only the others are missing."""
    with alone_in_a_group(tmp_path):
        sharded = step_on(GPU, photos, compiled=compiled, micro=micro, sharded=True)
    assert_same(sharded, step_on(CPU, photos))


def test_a_batch_arrives_as_it_was_sent(photos):
    recipe, _, data = prepared(photos, ALL)
    batch = batch_of(data, np.arange(6), recipe.stages[0])
    there = Sender(GPU)(batch)()
    sent = zip(
        (there.image_ids, there.text_ids, *there.pixels),
        (batch.image_ids, batch.text_ids, *batch.pixels),
        strict=True,
    )
    for mine, other in sent:
        assert mine.device == GPU
        torch.testing.assert_close(mine.cpu(), other)
    for mine, other in zip(there.text_views, batch.text_views, strict=True):
        torch.testing.assert_close(mine.ids.cpu(), other.ids)


def test_a_run_learns_and_one_cut_short_goes_on(photos, tmp_path):
    """All stages with rounds in bf16, and again with a stop in the middle: the same to the GPU's rounding."""
    whole = tiny.recipe(photos, views={"image": VIEWS["image"]}, train={"precision": "auto", "compile": True})
    train(whole, tmp_path / "whole", device="cuda")

    def stop(event):
        if event["kind"] == "epoch" and event["stage"] == "align":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "cut", device="cuda", listener=stop)
    train(whole, tmp_path / "cut", device="cuda", resume=True)
    mine, wanted = (tiny.events(tmp_path / name, "step") for name in ("cut", "whole"))
    assert [event["step"] for event in mine] == [event["step"] for event in wanted]
    losses = [event["loss"] for event in wanted]
    assert [event["loss"] for event in mine] == pytest.approx(losses, rel=2e-2)
    assert all(np.isfinite(losses))


def test_pictures_have_the_vectors_of_the_cpu(photos):
    """Of batches that are begun while the ones before are computed."""
    _, model, data = prepared(photos, ALL)
    model.eval()
    pictures = [data.items.image(position) for position in range(len(data.items.images))]
    here = model.encode_images(pictures, batch_size=4)
    there = model.to(GPU).encode_images(pictures, batch_size=4)
    np.testing.assert_allclose(there, here, atol=0.03)
