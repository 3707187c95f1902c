"""When a client that is refused may come back: once those before it are served, and not all at the same time.

Clients that are told the same second come back together, and most of them are refused again; each refusal
takes time that answers lack. So every refused client gets a turn of its own, behind those that wait and
those that were refused before it. Where more clients ask than can be served, they are refused less often
then, and sooner.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

SHORTEST_S, LONGEST_S = 1, 30
"""Of what `Retry-After` says, in seconds."""
FIRST_GUESS_S = 0.02
"""Time for an answer before any was measured, in seconds."""
WEIGHT = 0.05
"""Of the last answer in the mean time of an answer."""
SPREAD = 0.25
"""By what share of its length a wait is lengthened at most."""


def retry_after(until_turn_s: float, draw: float) -> int:
    """Whole seconds to wait for a turn that comes in `until_turn_s`; `draw` in [0, 1) spreads equal turns."""
    seconds = until_turn_s * (1 + SPREAD * draw) + draw
    return int(min(LONGEST_S, max(SHORTEST_S, seconds)))


class Crowd:
    """How fast requests are answered, and when the next one that is refused has its turn.

    Not to be shared by threads: the server's event loop has it.
    """

    def __init__(
        self,
        full: int,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`full`: so many requests wait where others are refused."""
        self._full, self._clock, self._draw = full, clock, draw
        self._answer_s = FIRST_GUESS_S
        self._next_turn = 0.0

    def answered(self, took_s: float, waiting: int) -> None:
        """A request was answered that found so many waiting, itself included: each took its share."""
        if waiting > self._full / 2:  # a few share no forwards, and would promise a crowd longer waits
            self._answer_s += WEIGHT * (took_s / waiting - self._answer_s)

    def turn(self, waiting: int) -> int:
        """What `Retry-After` says to a client that is refused while so many requests wait, in seconds."""
        now = self._clock()
        turn = max(self._next_turn, now + waiting * self._answer_s)
        self._next_turn = min(turn + self._answer_s, now + LONGEST_S)
        return retry_after(turn - now, self._draw())
