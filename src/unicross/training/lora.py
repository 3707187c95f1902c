"""Low-rank adapters beside the towers' weights, through the package peft (Hu et al. 2022, "LoRA")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unicross.config import LoRAConfig
from unicross.errors import RecipeError
from unicross.model import TwoTower

ADAPTER = ".lora_"
"""In the names of an adapter's weights."""
BASE, MERGED = ".base_layer.", "."
"""What peft puts into the name of a weight that has an adapter beside it."""


def add_adapters(model: TwoTower, lora: LoRAConfig) -> None:
    """Put adapters beside the linear layers of the towers that have one in `lora`; others stand still.

    Raises RecipeError where peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RecipeError("train.lora needs the package peft: pip install 'unicross[lora]'") from error

    for tower, adapter in ((model.image, lora.image), (model.text, lora.text)):
        tower.has_adapters = True
        if adapter is None:
            continue
        config = LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=_linear_layers(tower.backbone),
        )
        inject_adapter_in_model(config, tower.backbone)


def keep_adapters_only(model: TwoTower) -> None:
    """Where towers have adapters, let nothing else of their encoders move."""
    for tower in (model.image, model.text):
        if tower.has_adapters:
            for name, parameter in tower.backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and ADAPTER in name)


@torch.no_grad()
def merged(model: TwoTower, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with adapters added to the weights that they stand beside, under the names without
    adapters."""
    scaling = {
        name: module.scaling["default"]
        for name, module in model.named_modules()
        if isinstance(getattr(module, "scaling", None), dict)
    }
    result = {}
    for name, tensor in weights.items():
        if ADAPTER in name:
            continue
        layer, found, parameter = name.partition(BASE)
        if found and parameter == "weight":
            down, up = (weights[f"{layer}.lora_{part}.default.weight"] for part in ("A", "B"))
            tensor = tensor + scaling[layer] * up @ down  # [out, r] @ [r, in] -> [out, in]
        result[name.replace(BASE, MERGED)] = tensor
    return result


def _linear_layers(backbone: nn.Module) -> list[str]:
    """Names of the linear modules inside the encoder's layers."""
    return [
        name for name, module in backbone.named_modules() if isinstance(module, nn.Linear) and "layer" in name
    ]
