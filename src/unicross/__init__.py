"""Find pictures by words and words by pictures: train, evaluate, index, search and serve two-tower models."""

__version__ = "0.1.0"
