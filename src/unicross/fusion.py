"""Two rankings made one, and what is quoted in a query: plain functions."""

from __future__ import annotations

import re
from collections.abc import Sequence

RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack et al. 2009): a hit of rank r counts 1 / (60 + r)."""

_QUOTED = re.compile(r'["“„«]\s*([^"“”„«»]+?)\s*["”“»]')


def fuse(*rankings: Sequence[str]) -> list[str]:
    """Ids that stand in any of the rankings (best first, each id once), best of all first.

    Ties go to what the earlier ranking has higher.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, 1):
            scores[id] = scores.get(id, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores, key=lambda id: -scores[id])


def phrases_of(words: str) -> list[str]:
    """What stands in quotes: `a dog "on the beach"` -> `on the beach`."""
    return _QUOTED.findall(words)


def unquoted(words: str) -> str:
    """The words without their quotes, as the model reads them: `a dog on the beach`."""
    return _QUOTED.sub(r"\1", words)
