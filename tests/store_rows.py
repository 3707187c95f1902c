"""What the tests of stores share: rows with vectors in loose groups, and hostile albums."""

from __future__ import annotations

import numpy as np

from unicross.store import Row, StoreInfo
from unicross.store.base import make_id

D = 32
INFO = StoreInfo(fingerprint="f1", checkpoint="/somewhere/model", dim=D)
ALBUMS = ["beach", "o'brien's", 'say "hi"', "Ünï çödé 海", "100% _all\\", ""]


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Rows in loose groups, as embeddings of pictures are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, D))
    vectors = centres[rng.integers(20, size=count)] + 0.5 * rng.standard_normal((count, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Row(
            id=make_id("image", f"/photos/{seed}/{i}.jpg"),
            kind="image" if i % 3 else "text",
            path=f"/photos/{seed}/{i}.jpg",
            size=1000 + i,
            mtime=1_700_000_000.25 + i,
            caption=f"caption {i}",
            album=ALBUMS[i % len(ALBUMS)],
            extra={"stars": i % 5, "author": "ann" if i % 2 else "bob"} if i % 4 else {},
            vector=vector.astype(np.float32),
        )
        for i, vector in enumerate(vectors)
    ]


def exact(rows: list[Row], query: np.ndarray) -> list[tuple[str, float]]:
    scored = [(row.id, float(row.vector @ query)) for row in rows]
    return sorted(scored, key=lambda pair: -pair[1])
