"""Principal axes against numpy's SVD, and their text."""

from __future__ import annotations

import numpy as np
import pytest

from unicross.axes import axes_from_text, axes_to_text, principal_axes


@pytest.mark.parametrize(("count", "dim"), [(200, 5), (200, 12), (7, 5)])
def test_axes_are_the_right_singular_vectors(count: int, dim: int) -> None:
    """Of the vectors as they are, so a mean is an axis too."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 12)) * np.linspace(2, 0.3, 12) + 3 * np.eye(12)[7]
    vectors = vectors.astype(np.float32)
    axes = principal_axes([vectors], dim)
    assert (axes.dtype, axes.shape) == (np.float32, (12, dim))
    np.testing.assert_allclose(axes.T @ axes, np.eye(dim), atol=1e-5)
    expected = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)[2][:dim].T  # [W, D]
    np.testing.assert_allclose(np.abs(axes.T @ expected), np.eye(dim), atol=1e-3)


def test_groups_count_alike() -> None:
    few, many = np.eye(4, dtype=np.float32)[[0]], np.eye(4, dtype=np.float32)[[1] * 50 + [2] * 51]
    np.testing.assert_allclose(np.abs(principal_axes([few, many], 2)), np.eye(4)[:, [0, 2]], atol=1e-6)


def test_axes_come_back_from_text() -> None:
    axes = principal_axes([np.random.default_rng(0).standard_normal((90, 32)).astype(np.float32)], 6)
    np.testing.assert_allclose(axes_from_text(axes_to_text(axes), 6), axes, atol=3e-4)
    for wrong in (axes_to_text(axes)[:-8], "no base64"):
        with pytest.raises(ValueError, match=r"reshape|base64"):
            axes_from_text(wrong, 6)
