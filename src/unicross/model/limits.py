"""What a configuration may ask for before anything is built of it, and what its weight files say they hold.

A `config.json` of a hundred bytes can ask for ten million layers, and a file of weights can claim more than
any memory holds. Both are looked at as data first.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from unicross.errors import CheckpointError
from unicross.reading import open_file

LARGEST = {
    "num_hidden_layers": 512,
    "num_attention_heads": 512,
    "hidden_size": 32_768,
    "intermediate_size": 262_144,
    "projection_dim": 65_536,
    "vocab_size": 4_000_000,
    "max_position_embeddings": 1_000_000,
    "type_vocab_size": 10_000,
    "image_size": 8_192,
    "num_channels": 64,
    **dict.fromkeys(("depths", "num_layers", "encoder_layers", "decoder_layers"), 512),
    **dict.fromkeys(("hidden_sizes", "embed_dim"), 32_768),
}
"""Far beyond all that is known, and small enough to be built."""
MOST_PATCHES = 65_536
"""Of a picture: attention over more of them takes no sensible time."""
MOST_PARAMETERS = 200_000_000_000
LONGEST_HEADER = 100_000_000
"""Bytes of what a safetensors file says about its tensors, by its own format."""


def check_config(source: str | Path, config: PreTrainedConfig) -> None:
    """Raise CheckpointError for sizes that no encoder has; also of the halves of pairs."""
    for part in (config, *(getattr(config, half, None) for half in ("vision_config", "text_config"))):
        if part is not None:
            _check(source, part)


def _check(source: str | Path, config: Any) -> None:
    for name, largest in LARGEST.items():
        value = getattr(config, name, None)
        numbers: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
        for number in numbers:
            if isinstance(number, int | float) and not 0 <= number <= largest:
                raise _refusal(source, f"{name} of {number}", f"0 to {largest}")
    side, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if isinstance(patch, int) and patch <= 0:
        raise _refusal(source, f"patch_size of {patch}", "1 and more")
    if isinstance(side, int) and isinstance(patch, int) and (side // patch) ** 2 > MOST_PATCHES:
        raise _refusal(source, f"{(side // patch) ** 2} patches a picture", f"at most {MOST_PATCHES}")
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    if isinstance(layers, int) and isinstance(width, int) and 4 * layers * width**2 > MOST_PARAMETERS:
        raise _refusal(source, f"{layers} layers of width {width}", f"{MOST_PARAMETERS:.0e} weights at most")


def _refusal(source: str | Path, what: str, allowed: str) -> CheckpointError:
    return CheckpointError(
        f"{source}: its configuration asks for {what}, allowed are {allowed}: fetch it again"
    )


def check_weights(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name.

    Raises CheckpointError where the file is none, is shorter or longer than its header says, or holds more
    than this machine's memory.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(LONGEST_HEADER, size - 8):
                raise ValueError("it has no header")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in tensors.items()}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path}: its weight file is damaged ({error}): fetch it again") from error
    if end != size - 8 - length:
        raise CheckpointError(
            f"{path}: its weight file is damaged or only partly there ({size} bytes, and its header "
            f"speaks of "
            f"{end + 8 + length}): fetch it again"
        )
    if size > (memory := memory_of_machine()):
        raise CheckpointError(
            f"{path}: its weight file has {size} bytes and this machine's memory {memory}: take a smaller "
            f"model"
        )
    return shapes


def memory_of_machine() -> int:
    """Bytes of memory that this machine has; a very large number where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**62


def check_fits(
    source: str | Path, make: Callable[[], torch.nn.Module], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError where a model needs far more weights than the files hold.

    `make` makes it, without memory.
    """
    try:
        with torch.device("meta"):
            needed = sum(tensor.numel() for tensor in make().state_dict().values())
    except Exception:  # what makes no model is told where it is made in earnest
        return
    held = sum(math.prod(shape) for shape in shapes.values())
    if needed > 2 * held + 50_000_000:  # poolers and positions may come on top
        raise CheckpointError(
            f"{source}: its config.json asks for {needed} weights and its files hold {held}: they do not "
            f"belong "
            "together: fetch it again"
        )
