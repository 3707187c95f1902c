"""Executes the notebooks in a folder of their own, offline: `make notebooks`.

`--write` puts their outputs into the repository, as they are committed; without it only whether they run is
told.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def execute(path: Path, folder: str) -> nbformat.NotebookNode:
    """Run a notebook in a folder. Raises CellExecutionError for a cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=7200,
        startup_timeout=1200,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": folder}},
    )
    client.execute()
    for cell in notebook.cells:  # when it was run is of no use to a reader
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
            if "text" in output:
                output.text = re.sub(r"\x1b\[[0-9;]*m", "", output.text.replace(folder + "/", ""))
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def smaller(png: str) -> str:
    """A picture in 128 colours, in a third of the bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these, such as find_pictures")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "120"}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if args.names and path.stem not in args.names:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        text = nbformat.writes(notebook) + "\n"
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {len(text) / 1000:.0f} kB", flush=True)
        if args.write:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
