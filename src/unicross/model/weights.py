"""Configurations and weights from Hugging Face folders and hub names, and plain words where they fail.

Loading never runs code from a checkpoint: safetensors and JSON only, and of the JSON nothing that chooses
code.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from unicross.errors import CheckpointError, RecipeError
from unicross.model.limits import check_config, check_fits, check_weights
from unicross.reading import read_text

CHOOSES_CODE = frozenset(
    {
        "attn_implementation",
        "_attn_implementation",
        "experts_implementation",
        "quantization_config",
        "auto_map",
    }
    | {"_experts_implementation", "torch_dtype", "dtype"}
)
"""What a configuration may not decide: which kernels run (a hub name would fetch one), and in what
precision."""
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


def read_config(source: str | Path) -> PreTrainedConfig:
    """The configuration of a folder or hub name, as far as it is data. Raises CheckpointError."""
    try:
        with quiet_transformers():
            raw, _ = PreTrainedConfig.get_config_dict(str(source))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source}: neither a folder with a Hugging Face model nor a hub name that can be reached "
            f"from here: {first_line(error)}"
        ) from error
    kind = raw.get("model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in raw:
            raise CheckpointError(
                f"{source}: this model brings Python code of its own (model_type {kind!r}), which is never "
                f"run: "
                "take a model of a kind that transformers knows (clip, siglip, vit, bert, ...)"
            )
        raise CheckpointError(
            f"{source}: its config.json names "
            + (
                f"model_type {kind!r}, which this version of transformers does not know"
                if kind
                else "no model_type"
            )
        )
    try:
        with quiet_transformers():  # SigLIP's own end token lies beyond its words, and nothing uses it
            config = CONFIG_MAPPING[kind].from_dict(_without_code(raw))
    except Exception as error:  # a configuration's own checks raise nearly anything
        raise CheckpointError(f"{source}: its config.json makes no {kind}: {first_line(error)}") from error
    check_config(source, config)
    return config


def _without_code(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_code(value) for key, value in node.items() if key not in CHOOSES_CODE}
    return node


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The bare model of a configuration; also of the halves of pairs, which transformers' table lacks.

    Raises RecipeError where there is none.
    """
    if type(config) in MODEL_MAPPING:
        return MODEL_MAPPING[type(config)]
    module, name = type(config).__module__, type(config).__name__
    try:
        modeling = import_module(module.replace(".configuration_", ".modeling_"))
        found: type[PreTrainedModel] = getattr(modeling, name.removesuffix("Config") + "Model")
    except (ImportError, AttributeError) as error:
        kind = getattr(config, "model_type", name)
        raise RecipeError(f"model_type {kind!r} makes no encoder: take a ViT, BERT, CLIP, ...") from error
    return found


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights. Raises RecipeError where the configuration makes none."""
    try:
        return model_class(config)(config).float()
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        raise RecipeError(f"model_type {kind!r} makes no encoder: {first_line(error)}") from error


def load(source: str, config: PreTrainedConfig, kind: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    """A model with the weights of a folder or hub name, all of them; only a pooler may be missing, and is
    then left out.

    Prefixes that wrapping leaves on names (`module.`, `vision_model.`, `bert.`) are understood. Raises
    CheckpointError, which names what is missing or does not fit.
    """
    kind = kind or model_class(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _weight_files(source):
        shapes.update(check_weights(path))
    if shapes:
        check_fits(source, lambda: kind(config), shapes)
    model, report = _load(source, config, kind, None)
    if _lacking(report) and (prefix := _prefix(report)):
        model, report = _load(source, config, kind, {f"^{re.escape(prefix)}": ""})
    if missing := _lacking(report):
        raise CheckpointError(
            f"{source}: {len(missing)} of the {len(model.state_dict())} weights that {config.model_type!r} "
            f"needs "
            f"are not in its files: {_some(missing)}. They would be random: give the folder of a trained "
            f"model "
            "of this kind"
        )
    if report["mismatched_keys"]:
        name, held, needed = min(report["mismatched_keys"])
        raise CheckpointError(
            f"{source}: its weights do not fit its config.json: {name} is {list(held)} in the file, and "
            f"{list(needed)} is needed"
        )
    if report["missing_keys"]:
        model.pooler = None
    return model


def _load(
    source: str, config: PreTrainedConfig, kind: type[PreTrainedModel], names: dict[str, str] | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        with quiet_transformers():  # its report of weights reads like a fault, or is one and is told above
            return kind.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                key_mapping=names,
            )
    except SafetensorError as error:
        raise CheckpointError(
            f"{source}: its weight file is damaged or only partly there ({first_line(error)}): fetch it again"
        ) from error
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: its weights could not be loaded: {_why_not(source) or first_line(error)}"
        ) from error
    finally:
        hf_logging.enable_progress_bar()


def _weight_files(source: str) -> list[Path]:
    """The safetensors files of a source, as far as they are there."""
    if path := find_file(source, "model.safetensors"):
        return [path]
    index = find_file(source, "model.safetensors.index.json")
    shards = set(read_json(index).get("weight_map", {}).values()) if index else set()
    return [path for name in sorted(shards) if (path := find_file(source, name))]


def _why_not(source: str) -> str | None:
    """What is wrong with the weight files of a source, where that can be seen."""
    if index := find_file(source, "model.safetensors.index.json"):
        shards = set(read_json(index).get("weight_map", {}).values())
        absent = sorted(name for name in shards if not find_file(source, name))
        if absent:
            return f"{len(absent)} of its {len(shards)} files are not there ({_some(absent)}): fetch it again"
    if find_file(source, "model.safetensors"):
        return None
    if pickled := next((name for name in PICKLES if find_file(source, name)), None):
        return (
            f"only pickled ones are there ({pickled}), which can run code and are never read. If you trust "
            f"them, convert them once, in the folder: {CONVERT.format(pickled)}"
        )
    if Path(source).is_dir():
        return "there is no model.safetensors in the folder; is it only partly fetched?"
    return None


def _lacking(report: Mapping[str, Any]) -> list[str]:
    """Weights that are in no file, but those of a pooler, which most towers do without."""
    return sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))


def _prefix(report: Mapping[str, Any]) -> str | None:
    """What the names in the file have before those that are wanted; None for nothing."""
    missing = set(_lacking(report))
    counts = Counter(
        name[: start + 1]
        for name in report["unexpected_keys"]
        for start in (match.start() for match in re.finditer(r"\.", name))
        if name[start + 1 :] in missing
    )
    return counts.most_common(1)[0][0] if counts else None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within, transformers tells errors only, and draws no bars."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
