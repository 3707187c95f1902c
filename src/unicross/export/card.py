"""The model card: what a model is, what it was trained on and how, how good it is, how it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

from unicross.errors import CheckpointError
from unicross.model import TwoTower
from unicross.model_folder import has_recipe, recipe_of
from unicross.recipe import dump_recipe
from unicross.result import Result
from unicross.run import RunFolder, checkpoint_at

LOADED = {
    "hf": """from PIL import Image
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER", backend="pil")
pictures, texts = [Image.open("dog.jpg")], [A_DOG]
inputs = processor(text=texts, images=pictures, padding=PADDING, truncation=True, return_tensors="pt")
scores = model(**inputs).logits_per_image""",
    "onnx": """from onnxruntime import InferenceSession
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

images = InferenceSession("FOLDER/onnx/vision_model.onnx")
texts = InferenceSession("FOLDER/onnx/text_model.onnx")
processor = AutoImageProcessor.from_pretrained("FOLDER", backend="pil")
pictures = processor([Image.open("dog.jpg")], return_tensors="np")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
words = tokenizer([A_DOG], padding=PADDING, truncation=True, return_tensors="np")
(image_embeds,) = images.run(None, {"pixel_values": pictures["pixel_values"]})
(text_embeds,) = texts.run(None, {node.name: words[node.name] for node in texts.get_inputs()})
scores = image_embeds @ text_embeds.T""",
    "sentence-transformers": """from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
scores = model.encode([Image.open("dog.jpg")]) @ model.encode([A_DOG]).T""",
    "open_clip": """import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")""",
}
"""By target: how the folder is loaded by its own library."""
RECALLS = (1, 5, 10)


def write_card(
    model: TwoTower, source: Path, folder: Path, target: str, int8: tuple[Result, Result] | None = None
) -> None:
    """Write README.md into the folder of an exported model.

    `int8`: what its graphs find in 32 and in 8 bits, where they were written in 8.
    """
    padding = '"max_length"' if model.text_rules.pad_to else "True"
    loaded = LOADED[target].replace("PADDING", padding).replace("A_DOG", f'"{model.text_rules.prefix}a dog"')
    parts = [
        "---\nlicense: other\nlicense_name: fill-in\ntags: [image-text-retrieval, unicross]\n---\n",
        "# An image-text model, trained with unicross\n",
        "The licence is not known to the exporter: set it in the header, by those of the weights it began "
        "with and "
        "of the data.\n",
        "## How it is loaded\n",
        f"```python\n{loaded}\n```\n",
        "## How pictures and texts are prepared\n",
        "".join(f"- {sentence}\n" for sentence in model.preparation()),
        *([] if int8 is None else [_cost_of_int8(folder, *int8)]),
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


def _cost_of_int8(folder: Path, whole: Result, small: Result) -> str:
    """Recalls in 32 and 8 bits, and the size of the graphs."""
    lines = [
        "## What 8 bits cost\n",
        "`onnx/vision_model_int8.onnx` and `onnx/text_model_int8.onnx` are the same graphs with the weights "
        "of their matrix products in 8 bits. Recalls in percent on "
        f"{whole.n_images} images and {whole.n_captions} captions:\n",
        "| | MB | " + " | ".join(f"{way} R@{k}" for way in ("i2t", "t2i") for k in RECALLS) + " |",
        "|---" * (2 + 2 * len(RECALLS)) + "|",
    ]
    for name, pattern, result in (("32 bits", "*_model.onnx*", whole), ("8 bits", "*_int8.onnx*", small)):
        size = sum(file.stat().st_size for file in folder.rglob(pattern)) / 1e6
        recalls = [result.metrics[f"{way}/R@{k}"] for way in ("i2t", "t2i") for k in RECALLS]
        lines.append(f"| {name} | {size:.1f} | " + " | ".join(f"{value:.1f}" for value in recalls) + " |")
    return "\n".join(lines) + "\n"


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
