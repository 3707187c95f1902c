"""A round: embeddings of the pairs, which of them look wrong, clusters, and captions for images without.

The embeddings of a round come from the training steps themselves where they have them: every step computes
the shared-space features of its batch, and a bank keeps the last ones of each item. What the bank lacks is
embedded anew.

Letters: N items, P pairs, D the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unicross.batches import Indices, false_negatives
from unicross.clustering import balanced_clusters
from unicross.model import TwoTower
from unicross.suspects import wrong_pairs
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import embed_item_captions, embed_item_images

Half = NDArray[np.float16]


@dataclass(frozen=True)
class Clusters:
    """Embeddings [N, D] by item index, and the cluster of each item [N] (-1: not a pair)."""

    image: Half
    text: Half
    cluster: NDArray[np.int64]

    def masked(self, batch: Indices, mask_above: float) -> NDArray[np.bool_]:
        """Presumed false negatives [B, B] among the items of a batch: see `batches.false_negatives`."""
        return false_negatives(self.image[batch], self.text[batch], mask_above)


@dataclass(frozen=True)
class Round:
    """What the batches of some epochs are made by."""

    clusters: Clusters | None = None
    suspects: Indices | None = None
    """Pairs that look wrong and are left out; None: none were looked for."""

    def pairs(self, data: Dataset) -> Indices:
        """The pairs that batches are drawn from."""
        return data.pairs if self.suspects is None else np.setdiff1d(data.pairs, self.suspects)

    def state_dict(self) -> dict[str, Tensor]:
        arrays = {} if self.clusters is None else dict(vars(self.clusters))
        if self.suspects is not None:
            arrays["suspects"] = self.suspects
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> Round:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        suspects = arrays.pop("suspects", None)
        return cls(Clusters(**arrays) if arrays else None, suspects)


class FeatureBank:
    """The latest training features of each item, kept on the device."""

    def __init__(self, items: int, dim: int, device: torch.device, *, several_images: bool = False) -> None:
        self.several_images = several_images
        self.image = torch.zeros(items, dim, dtype=torch.float16, device=device)
        self.text = torch.zeros(items, dim, dtype=torch.float16, device=device)

    def put(self, ids: Tensor, image: Tensor, text: Tensor) -> None:
        """Keep features [P, V, D] of items [P]: means over views, texts mixed with their last.

        A step sees one or two captions of an item; mixing brings the row near the mean of all of them. So it
        is with images where items have several.
        """
        before = self.image[ids].float() if self.several_images else 0.0
        self.image[ids] = F.normalize(before + image.mean(dim=1), dim=-1).half()
        self.text[ids] = F.normalize(self.text[ids].float() + text.mean(dim=1), dim=-1).half()

    def forget(self) -> None:
        self.image.zero_()
        self.text.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        return {"image": self.image, "text": self.text}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.image.copy_(tensors["image"])
        self.text.copy_(tensors["text"])


def embed_pairs(model: TwoTower, data: Dataset, bank: FeatureBank) -> tuple[Half, Half, dict[str, int]]:
    """Embeddings of images [N, D] and texts [N, D] by item index: those of the bank, what it lacks made anew.

    Returns:
        Images; texts; forwards spent ({"image": ..., "text": ...}).
    """
    image, text = bank.image.cpu().numpy().copy(), bank.text.cpu().numpy().copy()  # steps change the bank
    no_image, no_text = (data.pairs[~rows[data.pairs].any(axis=1)] for rows in (image, text))
    image[no_image], images = embed_item_images(model, data, no_image)
    text[no_text], captions = embed_item_captions(model, data, no_text)
    return image, text, {"image": images, "text": captions}


def wrong_among(pairs: Indices, image: Half, text: Half, seed: int) -> Indices:
    """Those of some pairs [P] that look wrong by embeddings [N, D]."""
    return pairs[broadcast_object(lambda: wrong_pairs(image[pairs], text[pairs], seed=seed))]


def new_clusters(
    pairs: Indices, image: Half, text: Half, cluster_size: int, seed: int
) -> tuple[Clusters, dict[str, float]]:
    """Cluster pairs [P] by embeddings [N, D], and say how the clusters are: figures for the log."""
    joint = np.concatenate([image[pairs], text[pairs]], axis=1)  # both at unit length: [P, 2 * D]
    groups = broadcast_object(lambda: balanced_clusters(joint, cluster_size, seed=seed))
    cluster = np.full(len(image), -1, dtype=np.int64)
    for number, group in enumerate(groups):
        cluster[pairs[group]] = number
    sizes = [len(group) for group in groups]
    return Clusters(image, text, cluster), {
        "clusters": len(groups),
        "size_min": min(sizes),
        "size_max": max(sizes),
    }
