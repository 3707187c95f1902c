"""Linear heads in closed form: regularised canonical correlations of what two towers make of pairs.

Canonical directions (Hotelling 1936) are those in which pictures and their texts agree most. They take one
decomposition in place of many steps, and where there are a few hundred pairs only, the shrinkage keeps them
from fitting these by heart.

Letters: N rows, P pairs, H the width of a tower, R of its directions, D the shared space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHRINKAGE = 2.0
"""Added to the variance of each direction, in units of their mean."""
POWER = 0.5
"""A direction counts in both heads by its correlation to this power."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Features of pictures or of texts, and those of items: the mean of what each has of them."""

    rows: Floats
    """[N, H]"""
    items: Floats
    """[P, H]"""


def canonical_heads(images: Pairs, texts: Pairs, dim: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The weights of heads [D, H] for pictures and for texts.

    The shared space is turned at random, so that no dimension of it is empty or counts more than another.
    """
    of_images, of_texts = _Directions.of(images.rows), _Directions.of(texts.rows)
    together = of_images.coordinates(images.items).T @ of_texts.coordinates(texts.items)  # [R, R]
    left, strengths, right = torch.linalg.svd(together, full_matrices=False)
    count = min(dim, len(strengths))
    weights = (strengths[:count] / strengths[0].clamp(min=1e-30)) ** POWER
    turned = torch.linalg.qr(torch.from_numpy(rng.standard_normal((dim, count))))[0]  # [D, count]
    image, text = (weights * table @ turned.T for table in (left[:, :count], right[:count].T))
    return of_images.head(image), of_texts.head(text)


@dataclass(frozen=True, slots=True)
class _Directions:
    """The principal directions of a tower's features, without that of their mean: heads have no bias, and
    what all features have in common says nothing."""

    axes: Tensor
    """[H, R]"""
    scales: Tensor
    """[R]: what makes the features spread alike in all directions, short of the shrinkage."""

    @classmethod
    def of(cls, rows: Floats) -> _Directions:
        """Of features [N, H]."""
        moments = torch.from_numpy(rows.T @ rows).double() / len(rows)
        mean = torch.from_numpy(rows.mean(axis=0)).double()
        mean = mean / mean.norm().clamp(min=1e-12)
        outside = torch.eye(len(mean), dtype=torch.float64) - torch.outer(mean, mean)
        variances, axes = torch.linalg.eigh(outside @ moments @ outside)
        variances = variances.clamp(min=0)
        scales = (variances + SHRINKAGE * variances.mean()).clamp(min=1e-12).rsqrt()
        return cls(outside @ axes, scales)

    def coordinates(self, rows: Floats) -> Tensor:
        """[N, H] -> [N, R]"""
        return torch.from_numpy(rows).double() @ self.axes * self.scales

    def head(self, found: Tensor) -> Tensor:
        """Directions in these coordinates [R, D] -> the weight of a head [D, H], as large as a new one."""
        weight = (self.axes * self.scales @ found).T
        return (weight / weight.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)).float()
