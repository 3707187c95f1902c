"""What it saves to optimise only the word rows that the captions use: steps a second and peak memory.

    python benchmarks/used_words.py EMOJI IMAGE_TOWER MULTILINGUAL_TOWER

Both sides train the same ten steps, each in a process of its own, twice in turn.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

LANGUAGES = ("en", "de", "fr", "zh", "ja", "es")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("emoji")
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--side", choices=["used", "whole"], help="run one side and print its figures")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(one_side(given.emoji, given.image, given.text, whole=given.side == "whole")))
        return
    for turn in range(2):
        for side in ("used", "whole"):
            command = [sys.executable, __file__, given.emoji, given.image, given.text, "--side", side]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(turn, side, done.stdout.strip(), flush=True)


def one_side(emoji: str, image: str, text: str, *, whole: bool) -> dict[str, float]:
    """Seconds of a step and the most memory in GB, with the whole table optimised or the rows in use."""
    from unicross.recipe import make_recipe
    from unicross.training import train, used_words

    if whole:
        used_words.WORTH = 0.0
    recipe = make_recipe(
        {
            "model": {
                "image": image,
                "text": text,
                "text_prefix": "query: ",
                "text_pool": "mean",
                "image_size": 64,
            },
            "data": {
                "root": emoji,
                "item": "id",
                "image": "images",
                "caption": [f"{language}.label" for language in LANGUAGES],
                "split": {"val": None},
            },
            "train": {"threads": 1},
            "stages": [{"name": "align", "epochs": 1, "losses": {"image_text": 1.0}}],
        }
    )
    epochs = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe,
            Path(folder) / "run",
            listener=lambda event: epochs.append(event) if event["kind"] == "epoch" else None,
        )
    step = epochs[0]["seconds"] / epochs[0]["batches"]
    return {"step_s": step, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


if __name__ == "__main__":
    main()
