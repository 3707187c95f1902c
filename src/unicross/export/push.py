"""Uploading an exported folder to the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import HfApi

from unicross.errors import CheckpointError
from unicross.model.open_clip import CONFIG


def push(folder: Path, name: str) -> str:
    """Upload a folder into the repository `name`, which is made, private, where it is not there.

    Returns its address. Raises CheckpointError where that fails.
    """
    _name_tokenizer(folder / CONFIG, name)
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # whatever its transport raises
        reason = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(
            f"{name}: cannot be uploaded: {reason}. Log in with `hf auth login`; the folder {folder} is "
            f"written"
        ) from error
    return f"https://huggingface.co/{name}"


def _name_tokenizer(config: Path, name: str) -> None:
    """Say in an open_clip folder where its tokenizer will be: of the hub, open_clip reads it by name."""
    if config.is_file():
        written = json.loads(config.read_text(encoding="utf-8"))
        text = written["model_cfg"]["text_cfg"]
        if "hf_tokenizer_name" in text:
            text["hf_tokenizer_name"] = name
            config.write_text(json.dumps(written, indent=2), encoding="utf-8")
