"""A fake training for the tests of comparing, whose runs cost and find what the recipe says."""

import json

import numpy as np
import yaml

from unicross.compare import Steps
from unicross.evaluation import evaluate_embeddings
from unicross.recipe import dump_recipe

GIVEN = ["data.root=somewhere"]
N = 60


def write_recipe(folder, name, *, epochs=(2,), weight=0.0):
    recipe = {
        "model": {"image": "tiny", "text": "tiny"},
        "data": {"root": "???"},
        "stages": [
            {"name": f"s{i}", "epochs": e, "losses": {"image_text": 1.0, "image_image": weight}}
            for i, e in enumerate(epochs)
        ],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return folder / f"{name}.yaml"


class FakeSteps:
    """An epoch costs 1, with image_image 2, in the last stage .5 more; image_image makes the better model."""

    def __init__(self):
        self.trained, self.evaluated, self.read, self.images = [], [], [], N

    @property
    def steps(self):
        return Steps(self.train, self.evaluate, self.evaluate_untrained, self.read.append)

    def train(self, recipe, folder, resume):
        self.trained.append((recipe.seed, recipe.epochs, resume))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(dump_recipe(recipe))
        spent, lines = 0.0, []
        for stage in recipe.stages:
            for _ in range(stage.epochs):
                spent += (2 if stage.losses.image_image else 1) + 0.5 * (stage is recipe.stages[-1])
                lines.append({"kind": "step", "loss": 1.0})
                lines.append({"kind": "epoch", "compute": spent})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {
            "metrics": {},
            "forwards": {"image": 100 * spent, "text": 50 * spent},
            "compute": spent,
            "minutes": spent / 10,
        }
        (folder / "summary.json").write_text(
            json.dumps({**summary, "seed": recipe.seed, "epochs": recipe.epochs})
        )

    def evaluate(self, recipe, folder):
        self.evaluated.append(folder)
        return self.result(recipe.seed, 0.6 if recipe.stages[-1].losses.image_image else 1.0)

    def evaluate_untrained(self, _, source):
        self.evaluated.append(source)
        return self.result(7, 2.0)

    def result(self, seed, noise):
        rng = np.random.default_rng(seed)
        images = rng.normal(size=(self.images, 16))
        texts = np.repeat(images, 2, axis=0) + noise * rng.normal(size=(2 * self.images, 16))
        return evaluate_embeddings(images, texts, np.repeat(np.arange(self.images), 2))
