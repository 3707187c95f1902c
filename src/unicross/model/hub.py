"""The files of a model, in a folder or on the Hugging Face hub: what is there, and what to do where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, file_exists, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers.utils import cached_file

from unicross.errors import CheckpointError
from unicross.reading import read_text

CONFIGS = ("config.json", "open_clip_config.json", "modules.json")
"""Files one of which lies in the folder of a model."""
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin")
"""Weights that are never read: unpickling runs code."""
CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "weights = torch.load('{}', weights_only=True); save_file({{name: tensor.clone().contiguous() "
    "for name, tensor in weights.items()}}, 'model.safetensors', metadata={{'format': 'pt'}})\""
)
"""How pickled weights become safetensors."""
NAMED = 3
"""So many weights are named in a message, and the rest counted."""


def require_source(source: str) -> None:
    """Raise CheckpointError for a path that is not there, or a hub name where the hub cannot be reached.

    Loading would tell as much, but only after a minute of trying again.
    """
    if Path(source).exists():
        return
    if source.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"{source}: no such folder: give one with a Hugging Face model, or a hub name")
    try:
        if not any(isinstance(try_to_load_from_cache(source, name), str) for name in CONFIGS):
            HfApi().model_info(source, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return  # the hub answers: loading says what is wrong
    except Exception as error:  # whatever its transport raises
        raise CheckpointError(
            f"{source}: no such folder, not in the Hugging Face cache, and the hub cannot be reached "
            f"({first_line(error)}): give the folder of a model, or fetch it where there is a network with "
            f"`hf download {source}`"
        ) from error


def find_file(source: str | Path, name: str) -> Path | None:
    """A file of a folder or hub name; None where it has none, or none can be had."""
    try:
        path = cached_file(
            str(source),
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except (OSError, ValueError):
        return None
    return Path(path) if path else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises CheckpointError."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}: fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds no mapping: fetch it again")
    return value


def weight_files(source: str) -> list[Path]:
    """The safetensors files of a source, as far as they are there."""
    if path := find_file(source, "model.safetensors"):
        return [path]
    index = find_file(source, "model.safetensors.index.json")
    shards = set(read_json(index).get("weight_map", {}).values()) if index else set()
    return [path for name in sorted(shards) if (path := find_file(source, name))]


def why_no_weights(source: str, within: str = "") -> str:
    """Why a source has no safetensors file, by itself or in a folder `within` it, and what to do."""
    if not within and (absent := absent_shards(source)) is not None:
        return absent
    local = Path(source).is_dir()
    if pickled := next((name for name in PICKLES if _has(source, f"{within}/{name}".lstrip("/"))), None):
        fetched = "" if local else f" fetch them with `hf download {source} --local-dir FOLDER` and"
        return (
            f"only pickled ones are there ({pickled}), which can run code and are never read. Take a model "
            f"with model.safetensors or, if you trust them,{fetched} convert them once, in the folder that "
            f"has them: {CONVERT.format(pickled)}"
        )
    if local:
        return "there is no model.safetensors in the folder; is it only partly fetched?"
    return (
        "there is no model.safetensors under this name of the hub, or it cannot be reached now: take a model "
        f"that has one, or fetch it with `hf download {source}`"
    )


def require_weights(name: str, within: str, folder: str) -> None:
    """Raise CheckpointError where `folder`, fetched from `within` the hub name, has no safetensors file."""
    if not Path(name).is_dir() and not weight_files(folder):
        raise CheckpointError(f"{name}: its weights could not be loaded: {why_no_weights(name, within)}")


def absent_shards(source: str) -> str | None:
    """What to say where an index names files that are not there."""
    if not (index := find_file(source, "model.safetensors.index.json")):
        return None
    shards = set(read_json(index).get("weight_map", {}).values())
    absent = sorted(name for name in shards if not find_file(source, name))
    if not absent:
        return None
    return f"{len(absent)} of its {len(shards)} files are not there ({some(absent)}): fetch it again"


def _has(source: str, name: str) -> bool:
    """Whether a folder or hub name has a file, which is not fetched."""
    if Path(source).is_dir():
        return (Path(source) / name).exists()
    if isinstance(try_to_load_from_cache(source, name), str):
        return True
    try:
        return file_exists(source, name)
    except Exception:  # whatever its transport raises
        return False


def some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
