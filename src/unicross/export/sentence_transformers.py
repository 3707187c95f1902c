"""A model as a folder that `SentenceTransformer(...)` loads, for pictures and texts alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unicross.export.huggingface import write_huggingface
from unicross.model import TwoTower

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
NORMALIZE = "sentence_transformers.sentence_transformer.modules.normalize.Normalize"


def write_sentence_transformers(model: TwoTower, folder: Path) -> None:
    """Fill a folder. Raises CheckpointError as `write_huggingface` does, whose pair is the first module."""
    write_huggingface(model, folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": NORMALIZE},
    ]
    (folder / "1_Normalize").mkdir()
    features = {
        name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"}
        for name in ("text", "image")
    }
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": features,
            "module_output_name": "sentence_embedding",
            "processing_kwargs": _processing(model),
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "similarity_fn_name": "cosine",
            "prompts": {"query": model.text_rules.prefix} if model.text_rules.prefix else {},
            "default_prompt_name": None,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def _processing(model: TwoTower) -> dict[str, Any]:
    """Texts that the tower sees with their padding are padded to its full length."""
    length = model.text_rules.pad_to
    return (
        {}
        if length is None
        else {"text": {"padding": "max_length", "max_length": length, "truncation": True}}
    )
