"""A recipe: a whole run as plain, frozen, checked data. `recipe` reads and writes it as YAML.

Unknown keys are refused with their full path. The top-level mappings `optim`, `views`, `batches` and
`losses` are defaults: a stage's mapping of the same name is laid over them, so that a stage states only
what it changes. Nothing here knows the name of a method: CLIP, SLIP, LiT and the paper are recipes.
"""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from unicross.stage import Positive, Share, Stage, Strict

Pooling = Literal["cls", "mean", "pooler"]


def _tower(source: Any) -> Any:
    if not isinstance(source, str | dict):
        raise ValueError(f"give a folder or hub name, or a configuration with a model_type (got {source!r})")
    return source


TowerSource = Annotated[str | dict[str, Any], BeforeValidator(_tower)]


class ModelConfig(Strict):
    """Two towers and the heads on them.

    `model: {image: facebook/deit-tiny-patch16-224, text: sentence-transformers/all-MiniLM-L6-v2, dim: 256}`
    """

    image: TowerSource
    """A Hugging Face folder or hub name, or a configuration with a `model_type` for random weights."""
    text: TowerSource
    dim: int = Field(256, ge=1)
    """Size of the shared embedding space."""
    image_size: int = Field(224, ge=8)
    """Side of the square picture that the image tower sees, in pixels."""
    image_pool: Pooling = "cls"
    text_pool: Pooling = "mean"
    resize: Literal["squash", "crop"] = "squash"
    """How a picture becomes a square: `squash` keeps all of it, `crop` keeps its proportions."""
    uni_heads: Literal["own", "shared"] = "own"
    """Heads of the uni-modal losses: their own (an MLP), or the cross head."""
    uni_dim: int = Field(256, ge=1)
    temperature: Positive = 0.07
    """Initial temperature of the image-text loss; learnable, never below 0.01."""
    dropout: Share | None = None
    """Dropout of the text tower while training; None keeps what its configuration says."""


def _aside(val: Any) -> Any:
    wrong = isinstance(val, bool) or (isinstance(val, float) and not 0 < val < 1)
    if wrong or (isinstance(val, int) and val < 1):
        raise ValueError(f"give a split's name, a count, a share between 0 and 1, or null (got {val!r})")
    return val


class SplitConfig(Strict):
    """Names of splits; `val` may also be a count, or a share below 1, of items to set aside from train."""

    train: str | None = "train"
    val: Annotated[str | float | int | None, BeforeValidator(_aside)] = "val"


def _encoding(name: Any) -> Any:
    try:
        codecs.lookup(name)
    except (LookupError, TypeError):
        raise ValueError(f"no encoding that Python knows, such as utf-8 or cp1252 (got {name!r})") from None
    return name


class DataConfig(Strict):
    """Which items a run reads, and how: `data: {root: photos, split: {val: 0.1}, cache: disk}`."""

    root: str
    """A folder, or a captions file."""
    format: str | None = None
    """A name in `data.formats.FORMATS`, which reading the data checks; None: detected from the path."""
    image: str | None = None
    """The column with the pictures or their paths; None: known by its usual name. A dot enters nested
    data."""
    caption: str | tuple[str, ...] | None = None
    """The column with the captions, or several; None: known by its usual name. An empty list reads pictures
    without words."""
    split_column: str | None = None
    """The column that says which split a row is in; None: `split`, where there is one."""
    item: str | None = None
    """The column that tells items apart; None: `image_id` where there is one, else the picture."""
    encoding: Annotated[str, BeforeValidator(_encoding)] | None = None
    """Of text files; None: UTF-8, or UTF-16 with its mark."""
    split: SplitConfig = SplitConfig()
    max_tokens: int = Field(40, ge=3)
    """Tokens of a caption, special ones included; what is longer is cut."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether items with problems stop the run, or are left out, counted and listed."""
    cache: Literal["auto", "none", "memory", "disk"] = "auto"
    """Where decoded pictures are kept: nowhere, in memory, or in a memory-mapped file under the run; `auto`:
    in memory where they leave most of it free, else on the disk where there is room, and says so."""
    cache_size: int | None = Field(None, ge=8)
    """Side of the cached square in pixels; None: 8/7 of the model's image size."""


class Train(Strict):
    """How a run computes, in all of its stages: `train: {batch_size: 256, compile: true}`."""

    start_from: str | None = None
    """A run or checkpoint folder with whose weights, heads and temperature training begins; its towers and
    heads must be those of `model`. None: the towers' own weights, and new heads."""
    batch_size: int = Field(128, ge=2)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of training; whatever embeds goes by `auto`: bf16 where the processor multiplies it natively."""
    micro_batch: int | None = Field(None, ge=1)
    """Items that pass the towers at a time; the gradient is that of the whole batch. None: all at once."""
    clip_norm: Positive | None = 1.0
    """Largest norm of the gradient; None: any."""
    validate_every: int = Field(1, ge=1)
    """Epochs between looks at the validation items; the end of the run always looks."""
    save_minutes: Positive = 5.0
    """Time between step checkpoints; the end of an epoch always saves one."""
    shard: bool = False
    """Spread weights and optimiser state over torchrun's processes: for towers too large for one GPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: PyTorch's choice."""
    compile: bool = False
    """Compile the towers' layers: a minute or two at the start, then 1.05 to 1.4 times faster on the CPU."""


class Recipe(Strict):
    """A whole run."""

    seed: int = Field(0, ge=0, lt=2**32)
    model: ModelConfig
    data: DataConfig
    train: Train = Train()
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        if self.stages[0].restart_weights:
            raise ValueError(f"stage {names[0]!r} is the first: leave `restart_weights` out there")
        if self.train.shard and any(stage.restart_weights for stage in self.stages):
            raise ValueError("train.shard and restart_weights do not go together: set one of them only")
        if self.train.shard and len({frozenset(stage.freeze) for stage in self.stages}) > 1:
            raise ValueError(
                "train.shard needs the same `freeze` in all stages: train them as runs of their own"
            )
        for stage in self.stages:
            batches = stage.batches
            if batches.kind == "clustered" and batches.cluster_size > self.train.batch_size:
                raise ValueError(
                    f"stage {stage.name!r}: a cluster of {batches.cluster_size} does not fit in a batch of "
                    f"{self.train.batch_size}: lower batches.cluster_size"
                )
        return self

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)
