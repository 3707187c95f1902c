"""The model card: what a model is, what it was trained on and how, how good it is, how it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from unicross.errors import CheckpointError
from unicross.evaluation import Result
from unicross.model import TwoTower
from unicross.recipe import dump_recipe
from unicross.run import RunFolder, checkpoint_at, has_recipe, recipe_of

LOADED = {
    "hf": """from PIL import Image
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER")
inputs = processor(text=["a dog"], images=[Image.open("dog.jpg")], padding=True, return_tensors="pt")
scores = model(**inputs).logits_per_image""",
    "sentence-transformers": """from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
scores = model.encode([Image.open("dog.jpg")]) @ model.encode(["a dog"]).T""",
    "open_clip": """import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")""",
}
"""By target: how the folder is loaded by its own library."""
RECALLS = (1, 5, 10)


def write_card(model: TwoTower, source: Path, folder: Path, target: str) -> None:
    """Write README.md into the folder of an exported model."""
    parts = [
        "---\nlicense: other\nlicense_name: fill-in\ntags: [image-text-retrieval, unicross]\n---\n",
        "# An image-text model, trained with unicross\n",
        "The licence is not known to the exporter: set it in the header, by those of the weights it began "
        "with and "
        "of the data.\n",
        "## How it is loaded\n",
        f"```python\n{LOADED[target]}\n```\n",
        "## How pictures and texts are prepared\n",
        "".join(f"- {sentence}\n" for sentence in model.preparation()),
        *_training(source),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _training(source: Path) -> list[str]:
    folder = source if has_recipe(source) else checkpoint_at(source)
    if not has_recipe(folder):
        return [f"## Where it comes from\n\nThe pretrained pair `{source.name}`, as it was.\n"]
    try:
        recipe = recipe_of(folder)
    except CheckpointError:
        return []
    data = Path(recipe.data.root).name
    run = RunFolder(source)
    parts = [f"## What it was trained on\n\nData `{data}`, split `{recipe.data.split.train}`.\n"]
    if run.evaluation.is_file():
        parts += ["## How well it finds\n", _metrics(Result.load(run.evaluation), data)]
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": data})})
    return [*parts, "## Recipe\n", f"```yaml\n{dump_recipe(recipe)}```\n"]


def _metrics(result: Result, data: str) -> str:
    """Recalls in percent with their 95 % intervals (Wilson's)."""
    lines = [
        f"On the validation split of `{data}`, {result.n_images} images and {result.n_captions} captions, "
        f"in percent, "
        "with 95 % intervals:\n",
        "| | " + " | ".join(f"R@{k}" for k in RECALLS) + " |",
        "|---" * (1 + len(RECALLS)) + "|",
    ]
    for name, ranks in (("image to text", result.i2t.ranks), ("text to image", result.t2i.ranks)):
        cells = [_interval(float((ranks <= k).mean()), len(ranks)) for k in RECALLS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(share: float, count: int) -> str:
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return f"{100 * share:.1f} ({100 * (middle - half):.1f} to {100 * (middle + half):.1f})"
