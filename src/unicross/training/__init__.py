"""Training: stages, rounds of clusters, steps, checkpoints."""

from unicross.training.entry import train

__all__ = ["train"]
