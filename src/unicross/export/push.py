"""Uploading an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi

from unicross.errors import CheckpointError


def push(folder: Path, name: str) -> str:
    """Upload a folder into the repository `name`, which is made, private, where it is not there.

    Returns its address. Raises CheckpointError where that fails.
    """
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # whatever its transport raises
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{name}: cannot be uploaded: {reason}. Log in with `hf auth login`; the folder {folder} is "
            f"written"
        ) from error
    return f"https://huggingface.co/{name}"
