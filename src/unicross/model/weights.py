"""Configurations and weights from Hugging Face folders and hub names, and plain words where they fail.

Loading never runs code from a checkpoint: safetensors and JSON only, and of the JSON nothing that chooses
code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from unicross.errors import CheckpointError, RecipeError
from unicross.model.hub import absent_shards, first_line, some, weight_files, why_no_weights
from unicross.model.limits import check_config, check_fits, check_weights

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
    files = weight_files(source)
    if not files:  # transformers would ask a service of the hub to convert what is pickled
        raise CheckpointError(f"{source}: its weights could not be loaded: {why_no_weights(source)}")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes.update(check_weights(path))
    check_fits(source, lambda: kind(config), shapes)
    model, report = _load(source, config, kind, None)
    if _lacking(report) and (prefix := _prefix(report)):
        model, report = _load(source, config, kind, {f"^{re.escape(prefix)}": ""})
    if missing := _lacking(report):
        raise CheckpointError(
            f"{source}: {len(missing)} of the {len(model.state_dict())} weights that {config.model_type!r} "
            f"needs "
            f"are not in its files: {some(missing)}. They would be random: give the folder of a trained "
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
            f"{source}: its weights could not be loaded: {absent_shards(source) or first_line(error)}"
        ) from error
    finally:
        hf_logging.enable_progress_bar()


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
