"""Embeddings of a split of Flickr8k, made once for all benchmarks that search in them.

They are kept in the temporary folder, by the model's fingerprint. N is a number of pictures, M of captions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unicross.data.load import load_items
from unicross.data.preparation import PictureRules
from unicross.embed import Vectors, embed_images
from unicross.files import beside
from unicross.model import TwoTower

TRAIN = 3_000
"""Pictures of train that benchmarks take, so that they are ready in minutes."""


@dataclass(frozen=True)
class Embedded:
    """Pictures and captions of a split, with their vectors of length 1."""

    pictures: list[str]
    """Paths [N]."""
    images: Vectors
    """[N, D]."""
    captions: list[str]
    """[M]."""
    texts: Vectors
    """[M, D]."""
    owner: np.ndarray
    """The picture of each caption [M]."""


def embed_split(
    model: TwoTower, root: str | Path, split: str, *, captions_each: int, first: int | None = None
) -> Embedded:
    """The first pictures of a split, or all, with their first captions, at most `captions_each` of each."""
    items = load_items(str(root), split).items
    pictures = [items.pictures[int(row)] for row in items.images[:first]]
    own = [items[number].captions[:captions_each] for number in range(len(pictures))]
    captions = [caption for some in own for caption in some]
    name = f"{model.fingerprint()}-{split}-{len(pictures)}"
    return Embedded(
        pictures=[picture.name for picture in pictures],
        images=_once(f"{name}-images", lambda: np.stack(list(embed_images(model, pictures)))),
        captions=captions,
        texts=_once(f"{name}-texts-{captions_each}", lambda: model.encode_texts(captions)),
        owner=np.repeat(np.arange(len(pictures)), [len(some) for some in own]),
    )


def _once(name: str, embed: Callable[[], Vectors]) -> Vectors:
    path = Path(tempfile.gettempdir()) / "unicross-bench-embeddings" / f"{name}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with beside(path) as partial, partial.open("wb") as file:
            np.save(file, embed())
    return np.load(path)


class Remembered:
    """A model that knows the vectors of some texts [M, D] beforehand."""

    def __init__(self, model: TwoTower, texts: Sequence[str], vectors: Vectors) -> None:
        self._model = model
        self._vectors = dict(zip(texts, vectors, strict=True))

    @property
    def dim(self) -> int:
        return self._model.dim

    @property
    def picture_rules(self) -> PictureRules:
        return self._model.picture_rules

    def fingerprint(self) -> str:
        return self._model.fingerprint()

    def encode_pixels(self, pixels: Vectors, /) -> Vectors:
        return self._model.encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str], /) -> Vectors:
        return np.stack([self._vectors[text] for text in texts])
