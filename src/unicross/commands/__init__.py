"""The commands, one a file; `cli.py` mounts them."""
