"""The one loss of this project: multi-positive InfoNCE, cross-modal and uni-modal; or SigLIP's sigmoid.

Image-text, image-image and text-text are the same function. Positives are pairs with equal ids
(`image_id` as a number), so two captions of one image are never each other's negatives: each positive of an
anchor stands against the negatives alone, and the mean of that is the loss (Feeney & Hughes 2024, "SINCERE").
With all positives in each denominator (Khosla et al. 2020, "Supervised Contrastive Learning", eq. 2) an
anchor would push its nearer caption away. With one positive it is InfoNCE (van den Oord et al. 2018), so
CLIP's loss (Radford et al. 2021) and NT-Xent (Chen et al. 2020) are special cases.

Pure functions on tensors: no model, no rank, no configuration. Each returns the losses of its anchors; a
training step takes their mean.

Letters: Q queries, K keys, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Objective = Literal["infonce", "sigmoid"]


def info_nce(
    similarities: Tensor, positive: Tensor, ignored: Tensor | None = None, log_weights: Tensor | None = None
) -> Tensor:
    """Multi-positive InfoNCE over rows.

    Args:
        similarities: [Q, K] logits (already divided by the temperature).
        positive: [Q, K] bool, the keys that match each query. Every row needs at least one.
        ignored: [Q, K] bool, pairs that are neither positives nor negatives. A positive is never ignored.
        log_weights: [Q, K] logarithm of how often each pair counts in the softmax's denominator.

    Returns:
        [Q] the loss of each query: the mean over its positives p of -log softmax(similarities)[p], the
        softmax over p and all negatives.
    """
    logits = similarities.float()
    counted = logits if log_weights is None else logits + log_weights
    if ignored is not None:
        counted = counted.masked_fill(ignored & ~positive, -torch.inf)
    log_others = counted.masked_fill(positive, -torch.inf).logsumexp(dim=1, keepdim=True)  # [Q, 1]
    log_total = torch.logaddexp(logits, log_others)  # [Q, K]
    return torch.where(positive, log_total - logits, 0.0).sum(dim=1) / positive.sum(dim=1)


def sigmoid(
    similarities: Tensor, positive: Tensor, ignored: Tensor | None = None, log_weights: Tensor | None = None
) -> Tensor:
    """The sigmoid loss of SigLIP (Zhai et al. 2023) over rows: every pair is a yes or a no by itself.

    Arguments as for `info_nce`; `similarities` have the bias in them, and `log_weights` tell how often each
    negative counts.

    Returns:
        [Q] the loss of each query: the sum over its keys of -log sigmoid(similarity), negated for negatives.
    """
    logits = similarities.float()
    losses = F.softplus(torch.where(positive, -logits, logits))  # -log sigmoid(+-logit)
    if log_weights is not None:
        losses = torch.where(positive, losses, losses * log_weights.exp())
    if ignored is not None:
        losses = losses.masked_fill(ignored & ~positive, 0.0)
    return losses.sum(dim=1)


OBJECTIVES: dict[Objective, Callable[..., Tensor]] = {"infonce": info_nce, "sigmoid": sigmoid}


def cross_modal(
    images: Tensor,
    texts: Tensor,
    image_ids: Tensor,
    text_ids: Tensor,
    scale: Tensor | float,
    masked: Tensor | None = None,
    log_weights: Tensor | None = None,
    *,
    bias: Tensor | float = 0.0,
    objective: Objective = "infonce",
) -> tuple[Tensor, Tensor]:
    """Contrastive loss between two modalities: of each image among the texts, of each text among the images.

    The symmetric loss (CLIP's) is the mean of both means.

    Args:
        images: [Q, D] L2-normalised.
        texts: [K, D] L2-normalised.
        image_ids: [Q] integers; `text_ids`: [K] integers. Equal ids are positives.
        scale: 1 / temperature.
        masked: [Q, K] bool, presumed false negatives, left out of both directions.
        log_weights: [Q, K] see `sample_weights`; None: every pair counts once.
        bias: added to scaled cosines; a softmax does not see it.
        objective: `infonce` or `sigmoid`.

    Returns:
        The loss of each image [Q] and of each text [K].
    """
    loss = OBJECTIVES[objective]
    similarities = scale * images @ texts.T + bias  # [Q, D] @ [D, K] -> [Q, K]
    positive = image_ids[:, None] == text_ids[None, :]  # [Q, K]
    forward = loss(similarities, positive, masked, log_weights)
    backward = loss(similarities.T, positive.T, _turned(masked), _turned(log_weights))
    return forward, backward


def sample_weights(cluster: Tensor, negatives_from: int) -> Tensor:
    """How often each pair of a batch counts where the batch stands for many more items.

    Of a clustered batch, an anchor's own cluster is all there is of it, while the items of other clusters
    are a sample of the rest; counted alike, the near would crowd out the far. Weights by the inverse of
    how likely a negative was drawn (Horvitz & Thompson 1952; for a softmax: Bengio & Senécal 2008) let the
    denominator estimate that of all of them.

    Args:
        cluster: [P] the cluster of each pair of the batch; all different where the batch is random.
        negatives_from: items of which the batch is a sample.

    Returns:
        [P, P] logarithms: 0 within a cluster, log((negatives_from - C) / (P - C)) but not below 0 between
        two, where C is the mean number of pairs in an anchor's cluster.
    """
    same = cluster[:, None] == cluster[None, :]
    own = same.sum() / len(cluster)
    others = (negatives_from - own) / (len(cluster) - own).clamp(min=1)
    return torch.where(same, 0.0, others.clamp(min=1).log())


def _turned(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else matrix.T


def uni_modal(
    features: Tensor,
    ids: Tensor,
    temperature: float,
    masked: Tensor | None = None,
    *,
    objective: Objective = "infonce",
) -> Tensor:
    """Contrastive loss among all views of one modality (NT-Xent for two views: 2N - 2 negatives).

    Args:
        features: [Q, D] L2-normalised, the views of all items one after another.
        ids: [Q] integers; equal ids are views of one item. Every id occurs at least twice.
        temperature: of the softmax.
        masked: [Q, Q] bool, presumed false negatives.
        objective: `infonce` or `sigmoid`, with a bias by which equal vectors begin as an even guess.

    Returns:
        [Q] the loss of each view among the others.
    """
    similarities = features @ features.T / temperature  # [Q, D] @ [D, Q] -> [Q, Q]
    if objective == "sigmoid":
        similarities = similarities - 1 / temperature
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    positive = (ids[:, None] == ids[None, :]) & ~itself
    return OBJECTIVES[objective](similarities, positive, itself if masked is None else itself | masked)


def against_remembered(
    features: Tensor,
    ids: Tensor,
    remembered: Tensor,
    remembered_ids: Tensor,
    temperature: float,
    ignored: Tensor | None = None,
) -> Tensor:
    """InfoNCE of views among what was remembered of many items (a memory bank: Wu et al. 2018, "Unsupervised
    Feature Learning via Non-Parametric Instance Discrimination").

    Args:
        features: [Q, D] L2-normalised; `ids`: [Q] their items.
        remembered: [K, D] L2-normalised, without a gradient; a row of zeros is of an item not yet seen.
        remembered_ids: [K] their items, each of which occurs once; those of all views are among them.
        temperature: of the softmax.
        ignored: [Q, K] bool, presumed false negatives.

    Returns:
        The mean over the views whose item is remembered; 0 where none is.
    """
    positive = ids[:, None] == remembered_ids[None, :]  # [Q, K]
    unknown = ~remembered.any(dim=1)  # [K]
    similarities = features.float() @ remembered.float().T / temperature  # [Q, D] @ [D, K] -> [Q, K]
    losses = info_nce(similarities, positive, unknown if ignored is None else unknown | ignored)
    counts = (positive & ~unknown).any(dim=1)  # [Q]
    return (losses * counts).sum() / counts.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class Shares:
    """Which rows of a whole belong to whom: one slice for each share, in order; `own` is the number of one's
    own."""

    slices: Sequence[slice]
    own: int

    def map(self, times: int, count: int) -> Shares:
        """The same of the first `count` rows only, where each row stands for `times` rows."""
        bounds = ((min(part.start, count) * times, min(part.stop, count) * times) for part in self.slices)
        return Shares([slice(start, stop) for start, stop in bounds], self.own)


def sigmoid_of_share(
    rows: Tensor,
    keys: Tensor,
    row_ids: Tensor,
    key_ids: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    row_shares: Shares,
    key_shares: Shares,
    masked: Tensor | None = None,
    log_weights: Tensor | None = None,
    *,
    among_themselves: bool = False,
) -> Tensor:
    """One share of the sigmoid loss of all pairs, whose logits exist one block of two shares at a time.

    A sum over pairs falls into blocks (Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training"):
    nobody needs [Q, K] at once. Blocks are computed again in the backward pass instead of being kept.

    Args:
        rows: [Q, D], keys: [K, D] L2-normalised, with a gradient for one's own; `row_ids` [Q], `key_ids` [K].
        row_shares, key_shares: of Q and K.
        masked, log_weights: [Q, K] as in `cross_modal`.
        among_themselves: rows and keys are the same, and none is its own pair.

    Returns:
        The sum over one's own rows and all keys, so that the sum over shares is that of the whole. Its
        gradient to one's own rows and keys is that of the whole; those to `scale` and `bias` sum up to it.
    """
    scale, bias = (torch.as_tensor(value, device=rows.device) for value in (scale, bias))

    def block(r: slice, k: slice, rows: Tensor, keys: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        similarities = scale * rows @ keys.T + bias  # [q, D] @ [D, k] -> [q, k]
        positive = row_ids[r, None] == key_ids[None, k]
        ignored, weights = (None if matrix is None else matrix[r, k] for matrix in (masked, log_weights))
        if among_themselves:
            numbers = torch.arange(len(row_ids), device=rows.device)
            itself = numbers[r, None] == numbers[None, k]
            positive, ignored = positive & ~itself, itself if ignored is None else itself | ignored
        return sigmoid(similarities, positive, ignored, weights).sum()

    def summed(r: slice, k: slice, *tensors: Tensor) -> Tensor:
        total: Tensor = checkpoint(block, r, k, *tensors, use_reentrant=False, preserve_rng_state=False)
        return total

    own_rows, own_keys = row_shares.slices[row_shares.own], key_shares.slices[key_shares.own]
    counted = summed(own_rows, own_keys, rows[own_rows], keys[own_keys], scale, bias)
    for number, (r, k) in enumerate(zip(row_shares.slices, key_shares.slices, strict=True)):
        if number == row_shares.own:
            continue
        counted = counted + summed(own_rows, k, rows[own_rows], keys[k].detach(), scale, bias)
        others = summed(r, own_keys, rows[r].detach(), keys[own_keys], scale.detach(), bias.detach())
        counted = counted + (others - others.detach())  # another's pairs: their gradient to one's own keys
    return counted
