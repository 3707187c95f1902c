"""Training: stages, rounds of clusters, steps, checkpoints."""

from unicross.training.loop import train

__all__ = ["train"]
