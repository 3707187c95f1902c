"""Hubs, which are near to everything, and their correction within the vectors themselves.

In spaces of many dimensions some pictures are near to most texts and come up for queries that they do not
fit (Radovanovic et al. 2010, "Hubs in Space"). What a vector is near to on average can be taken off its
cosines: the nearness to a sample of the other modality (Bogolin et al. 2022, "Cross Modal Retrieval with
Querybank Normalisation"). It is one number for each vector, so four more dimensions hold it for both
modalities, and whatever searches by cosines searches by the corrected ones.

Letters: N vectors, K vectors of a sample, D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STEEPNESS = 10.0
"""How much more the nearest of a sample count: nearness is the logarithm of the mean exponential of cosines
times this, divided by it. The best of 5, 10 and 15 (docs/log.md)."""
LARGEST = 0.1
"""Most that is taken off a cosine or added to it."""
EXTRA = 4
"""Dimensions that hold the correction."""
HUBNESS = ("hubness.images", "hubness.texts", "hubness.centres")
"""Names of the correction's weights in a model. They belong to the towers as they are: training leaves them
out."""


class HubnessCorrection(nn.Module):
    """Samples of both modalities, and vectors with what these take off them.

    With p of an image and q of a text, both within `LARGEST`, their corrected cosine is (cosine - p - q) / z,
    where z is 1.2. Cosines of two images, or of two texts, keep their order but for a little: they are
    (cosine + 0.2) / z where both have the same p.
    """

    def __init__(self, images: Tensor, texts: Tensor, centres: Tensor) -> None:
        """`images` and `texts` [K, D], `centres` [2]: the mean nearness of images and of texts, from which p
        and q are counted. `fitted` finds them."""
        super().__init__()
        for name, value in (("images", images), ("texts", texts), ("centres", centres)):
            self.register_buffer(name, value)
        self.images: Tensor
        self.texts: Tensor
        self.centres: Tensor

    @classmethod
    def fitted(cls, images: Tensor, texts: Tensor, image_ids: Tensor, text_ids: Tensor) -> HubnessCorrection:
        """Of samples of unit vectors [K, D] and the items [K] that they are of: an item's own texts do not
        count where the centres are found, as new items have none among the sample."""
        others = image_ids[:, None] != text_ids[None, :]  # [K, K]
        cosines = (images @ texts.T).masked_fill(~others, -torch.inf)
        nearness = (_log_mean_exp(cosines.movedim(dim, 1), others.movedim(dim, 1).sum(1)) for dim in (1, 0))
        centres = [of_rows.nanmean().nan_to_num() for of_rows in nearness]  # nan: there are no others
        return cls(images.half(), texts.half(), torch.stack(centres))

    @property
    def samples(self) -> tuple[Tensor, Tensor]:
        """Of images and of texts, [K, D] each."""
        return self.images, self.texts

    def of_images(self, vectors: Tensor) -> Tensor:
        """Unit vectors [N, D] -> [N, D + 4], of length 1."""
        taken = self._taken(vectors, self.texts, self.centres[0])  # [N, 1]
        steady, rest = torch.full_like(taken, LARGEST**0.5), _rest(taken)
        return _joined(vectors, -taken / LARGEST**0.5, steady, rest, torch.zeros_like(taken))

    def of_texts(self, vectors: Tensor) -> Tensor:
        """Unit vectors [N, D] -> [N, D + 4], of length 1."""
        taken = self._taken(vectors, self.images, self.centres[1])  # [N, 1]
        steady, rest = torch.full_like(taken, LARGEST**0.5), _rest(taken)
        return _joined(vectors, steady, -taken / LARGEST**0.5, torch.zeros_like(taken), rest)

    def _taken(self, vectors: Tensor, sample: Tensor, centre: Tensor) -> Tensor:
        """What is taken off the cosines of vectors [N, D]: [N, 1]."""
        nearness = _log_mean_exp(vectors @ sample.float().T, torch.tensor(len(sample)))
        return (nearness - centre).clamp(-LARGEST, LARGEST)[:, None]


def _log_mean_exp(cosines: Tensor, counts: Tensor) -> Tensor:
    """[N, K] of which `counts` count -> [N]"""
    return ((STEEPNESS * cosines).logsumexp(dim=1) - counts.log()) / STEEPNESS


def _rest(taken: Tensor) -> Tensor:
    """What makes all vectors equally long."""
    return (LARGEST - taken.square() / LARGEST).clamp(min=0).sqrt()


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1) / math.sqrt(1 + 2 * LARGEST)
