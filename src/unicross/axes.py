"""Principal axes: the few directions in which vectors hold most of their length, and the axes as text.

N is a number of vectors, W their size, D the number of axes.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def principal_axes(groups: Sequence[NDArray[np.float32]], dim: int) -> NDArray[np.float32]:
    """The first `dim` principal axes of groups of vectors [N, W] that count alike, whatever their N.

    Returns orthonormal columns [W, dim], that of the most energy first: no others keep more of the vectors
    (Eckart & Young 1936). They are not centred, as a cosine is not.
    """
    energy = sum(group.T.astype(np.float64) @ group / len(group) for group in groups)  # [W, N] @ [N, W]
    return np.linalg.eigh(energy)[1][:, : -dim - 1 : -1].astype(np.float32)  # eigh has the least first


def axes_to_text(axes: NDArray[np.float32]) -> str:
    """Base64 of the axes [W, D] in half precision."""
    return b64encode(axes.astype("<f2").tobytes()).decode()


def axes_from_text(text: str, dim: int) -> NDArray[np.float32]:
    """The axes [W, dim] of a text by `axes_to_text`. Raises ValueError where it is none."""
    return np.frombuffer(b64decode(text, validate=True), "<f2").reshape(-1, dim).astype(np.float32)
