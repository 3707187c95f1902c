"""Several processes that train one model together, started by `torchrun`.

Every process makes the same plans and holds the same weights. It passes its share of a batch through the
towers, gathers the features of all, and computes the whole loss on them; its gradient reaches only its own
features, so the sum over processes is the gradient of the batch. One process alone is the same code: its
share is everything, and nothing is sent. The sigmoid loss is a sum over pairs, so of that each computes the
part of its own rows only (see `losses.sigmoid_of_share`).

Letters: N rows of a whole, R processes, E rows of a share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unicross.device import pick_device
from unicross.errors import DataError, TrainingError
from unicross.losses import Shares

T = TypeVar("T")

TIMEOUT = timedelta(hours=6)
"""How long a process waits for another: one may cluster or decode alone. One that dies is noticed at once."""
BUCKET = 2**24
"""Numbers of the gradient that are sent at a time."""


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes and shows what all of them do; known also outside of `joined`."""
    return rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str | None) -> Iterator[torch.device]:
    """Join the other processes if torchrun started this one; gives the device of this process.

    On GPUs each process of a machine takes its own. Raises RecipeError for a device that is not there.
    """
    if dist.is_initialized() or os.environ.get("WORLD_SIZE", "1") == "1":
        yield pick_device(device)
        return
    if device in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    own = pick_device(device)
    with _collective():
        if own.type == "cuda":
            torch.cuda.set_device(own)
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=own)
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)
    yield own
    dist.destroy_process_group()  # not after an error: it would wait for the others


def rank_slice(count: int) -> slice:
    """The rows, of `count`, that this process works on.

    All shares are equally long, so that all processes do the same; the last ones overlap where `count`
    does not divide.
    """
    each = -(-count // size())
    start = min(rank() * each, count - each)
    return slice(start, start + each)


def draw_own_seed(rng: np.random.Generator) -> int:
    """A seed for what this process draws alone: another one in each, from one generator."""
    return int(rng.integers(2**31, size=size())[rank()])


def gather(own: Tensor, count: int) -> Tensor:
    """The rows [N, ...] of all processes, from the `rank_slice` [E, ...] of each.

    The own rows keep their graph, those of the others have none.
    """
    if size() == 1:
        return own
    parts = [torch.empty_like(own) for _ in range(size())]
    with _collective():
        dist.all_gather(parts, own.detach().contiguous())
    parts[rank()] = own
    each = len(own)
    kept = [min(max(count - number * each, 0), each) for number in range(size())]  # no row twice
    return torch.cat([part[each - rows :] for part, rows in zip(parts, kept, strict=True)])


def shares(count: int) -> Shares:
    """Which of `count` gathered rows are whose: those whose gradient a process has (see `gather`)."""
    each = -(-count // size())
    bounds = [min(number * each, count) for number in range(size() + 1)]
    return Shares([slice(start, stop) for start, stop in pairwise(bounds)], rank())


def total(own: Tensor) -> Tensor:
    """The sum of what all processes computed, with the gradient of one's own part."""
    if size() == 1:
        return own
    whole = own.detach().clone()
    with _collective():
        dist.all_reduce(whole)
    return own + (whole - own.detach())


def gather_array(own: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`gather` for an array."""
    return own if size() == 1 else gather(torch.from_numpy(own), count).numpy()


def scale_gradient(value: Tensor) -> Tensor:
    """The same value, whose gradient is this process's part where every process computes the whole of it."""
    if value.requires_grad and size() > 1:
        value.register_hook(lambda gradient: gradient / size())
    return value


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes. All of them have gradients for the same parameters.

    Those of weights that are spread over the processes are added already (see `sharding`).
    """
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for bucket in _buckets([gradient for gradient in gradients if not isinstance(gradient, DTensor)]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _collective():
            dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def broadcast_weights(model: nn.Module) -> None:
    """Give all processes the weights of the first: random ones may differ between kinds of processors."""
    if size() > 1:
        for tensor in model.state_dict().values():
            with _collective():
                dist.broadcast(tensor, 0)


def broadcast_object(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, the only one that calls it."""
    if size() == 1:
        return make()
    value = [make() if rank() == 0 else None]
    with _collective():
        dist.broadcast_object_list(value, 0)
    return value[0]  # type: ignore[return-value]


def check_same(ids: Sequence[str], where: str) -> None:
    """Raise DataError where another process has read other items from `where`."""
    own = (len(ids), hashlib.sha256("\n".join(ids).encode(errors="surrogateescape")).hexdigest())
    first = broadcast_object(lambda: own)
    if own != first:
        raise DataError(
            f"{where}: process {rank()} reads {own[0]} items, the first process {first[0]}, or others: all "
            "machines need the same data, and data.on_error=skip must skip the same everywhere"
        )


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@contextmanager
def _collective() -> Iterator[None]:
    """Around what all processes do at once. Raises TrainingError where another one has stopped."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise TrainingError(
            f"process {rank()} of {size()} stops because another one did, which tells why ({reason})"
        ) from error
