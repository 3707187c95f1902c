"""The model: two towers with one embedding space."""

from unicross.model.two_tower import TwoTower

__all__ = ["TwoTower"]
