"""What tests of training share: a recipe with its model and data, rounds, gradients, other processes."""

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch

import tiny
from unicross.data.items import Item, Items
from unicross.data.load import read_splits
from unicross.device import autocast
from unicross.model import TwoTower
from unicross.streams import stream
from unicross.training import train
from unicross.training.batch import make_batch
from unicross.training.dataset import cached_side, make_dataset
from unicross.training.features import Features
from unicross.training.rounds import FeatureBank, Round, embed_pairs, new_clusters

CPU = torch.device("cpu")
PLAIN = partial(autocast, CPU, "fp32")
ALL = tiny.SHARPEN | {"losses": {"image_text": 1.0, "image_image": 0.5, "text_text": 0.25}}


class Killed(BaseException):
    """Not an Exception: nothing may catch it on the way out."""


def assert_resumes(recipe, folder, epochs=2):
    """A run that is killed at the end of an epoch and resumed has the weights of one that was not."""
    done = []

    def killed(event):
        done.extend([event] if event["kind"] == "epoch" else [])
        if len(done) == epochs:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, folder / "killed", listener=killed)
    train(recipe, folder / "killed", resume=True)
    train(recipe, folder / "whole")
    killed_last, whole = (TwoTower.load(folder / name / "last").state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in killed_last.items())


def prepared(photos, *stages, alone=0, **sections):
    """Recipe, model and data set; with `alone`, so many images and texts only are added."""
    recipe = tiny.recipe(photos, *stages, **sections)
    torch.manual_seed(recipe.seed)
    items = list(read_splits(recipe.data)[0])
    for number in range(alone):
        items.append(Item(f"image {number}", items[number].images))
        items.append(Item(f"text {number}", (), (f"a text about nothing {number}",)))
    captions = [caption for item in items for caption in item.captions]
    model = TwoTower.create(recipe.model, max_tokens=24, captions=captions)
    side = cached_side(recipe.data, model.picture_rules)
    data = dataset_of(items, model, recipe, side=side)
    return recipe, model, data


def dataset_of(items, model, recipe, side=36):
    """The data set of some items, decoded in memory; captions begin their turns by the recipe's seed."""
    return make_dataset(
        Items.of(items),
        model,
        recipe.data,
        side=side,
        where=None,
        rng=stream(recipe.seed, "captions"),
        on_progress=lambda *_: None,
    )[0]


def batch_of(data, items, stage, round_=None, *, turn=0, seed=0):
    """A batch of some items, by default of a round without clusters."""
    round_ = Round() if round_ is None else round_
    return make_batch(data, np.asarray(items), stage, round_, turn, np.random.default_rng(seed))


def clustered_round(data, model, stage):
    """A round of a stage with all pairs embedded by the model."""
    bank = FeatureBank(len(data.items), model.dim, CPU)
    image, text, _ = embed_pairs(model, data, bank)
    clusters, _ = new_clusters(data.pairs, image, text, stage.batches.cluster_size, seed=0)
    return Round(clusters)


def random_features(items, views=2, dim=8, seed=0):
    """Unit vectors of images and of texts, in both spaces."""
    generator = torch.Generator().manual_seed(seed)
    make = partial(torch.randn, items, views, dim, generator=generator)
    cross, uni = ([torch.nn.functional.normalize(make(), dim=-1) for _ in range(2)] for _ in range(2))
    return Features(cross[0], uni[0]), Features(cross[1], uni[1])


def cost(anchor, positives, negatives, scale):
    """-log of a positive's share against the negatives, each counted `weight` times; its mean over positives.

    `negatives`: pairs of a vector and a weight.
    """
    others = sum(weight * math.exp(scale * float(anchor @ key)) for key, weight in negatives)
    logits = [math.exp(scale * float(anchor @ key)) for key in positives]
    return mean(-math.log(logit / (logit + others)) for logit in logits)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def run_python(*arguments, threads=1):
    """What another Python says, which imports these sources and tests. Sums depend on its `threads`."""
    here = Path(__file__).parent
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": f"{here.parent / 'src'}:{here}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
