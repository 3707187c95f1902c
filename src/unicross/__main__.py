"""`python -m unicross`, which is also what torchrun starts."""

from unicross.cli import main

main()
