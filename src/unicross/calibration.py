"""From a cosine to how likely a found picture is the right one: Platt scaling (Platt 1999).

Fitted on queries whose right answer is known. Each asks twice: once as things are, and once with its right
answer taken away, so that its best hit is wrong for certain. The likelihood of a score is then the share of
best hits with that score which are right, where every second query asks for what is not there. It is that of
finding the very picture: a picture that shows the same counts as wrong, so it errs on the low side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

FEWEST_QUERIES = 50
"""With less, no calibration is fitted."""

STEPS = 100
"""Of Newton's method at most; ten are usual."""


class Calibration(BaseModel):
    """How likely a score is a match: 1 / (1 + exp(-(slope * score + intercept)))."""

    model_config = ConfigDict(frozen=True)

    slope: float
    intercept: float
    queries: int
    """Queries that it was fitted on."""

    def likelihood(self, score: float) -> float:
        """Of a hit with this cosine, in [0, 1]."""
        return float(1 / (1 + np.exp(-np.clip(self.slope * score + self.intercept, -50, 50))))


def fit_calibration(right: npt.NDArray[np.floating], wrong: npt.NDArray[np.floating]) -> Calibration | None:
    """Fit on Q queries; None where they are too few, or higher scores are no likelier to be right.

    `right` [Q]: the cosine of each query with its right answer; `wrong` [Q]: with the wrong one that scores
    highest.
    """
    known = np.isfinite(right) & np.isfinite(wrong)  # a gallery of one has no wrong answer
    right, wrong = right[known].astype(np.float64), wrong[known].astype(np.float64)
    is_right = right > wrong
    if len(right) < FEWEST_QUERIES or not is_right.any():
        return None
    scores = np.concatenate([np.maximum(right, wrong), wrong])  # [2Q]
    hits = int(is_right.sum())
    # Platt's targets instead of 1 and 0: they keep the slope finite where the scores part the two
    above, below = (hits + 1) / (hits + 2), 1 / (len(scores) - hits + 2)
    targets = np.where(np.concatenate([is_right, np.zeros_like(is_right)]), above, below)
    slope, intercept = _logistic(scores, targets)
    return Calibration(slope=slope, intercept=intercept, queries=len(right)) if slope > 0 else None


def _logistic(scores: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of targets [N] in [0, 1] on scores [N]."""
    mean, spread = scores.mean(), scores.std() + 1e-9
    features = np.stack([(scores - mean) / spread, np.ones_like(scores)], axis=1)  # [N, 2]
    weights = np.zeros(2)
    for _ in range(STEPS):
        shares = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (shares - targets)
        hessian = (features * (shares * (1 - shares))[:, np.newaxis]).T @ features + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    slope = weights[0] / spread
    return float(slope), float(weights[1] - slope * mean)
