"""A recipe: a whole run as plain, frozen, checked data. `recipe` reads and writes it as YAML.

Unknown keys are refused with their full path. The top-level mappings `optim`, `views`, `batches` and
`losses` are defaults: a stage's mapping of the same name is laid over them, so that a stage states only
what it changes. Nothing here knows the name of a method: CLIP, SLIP, LiT and the paper are recipes.
"""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from unicross.stage import Positive, Share, Stage, Strict

Pooling = Literal["cls", "mean", "last", "pooler", "layers"]
"""What of a tower's output stands for the whole: its first token, the mean, the last token, or what the tower
itself makes of it (CLIP's end token, SigLIP's attention pooling)."""
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Channels = tuple[float, float, float]


def _tower(source: Any) -> Any:
    if not isinstance(source, str | dict):
        raise ValueError(f"give a folder or hub name, or a configuration with a model_type (got {source!r})")
    return source


TowerSource = Annotated[str | dict[str, Any], BeforeValidator(_tower)]


OF_PAIRS = (
    *("dim", "image_size", "image_pool", "text_pool", "resize", "mean", "std", "temperature"),
    *("image", "text"),
)
"""What a pair brings itself, so that a `ModelConfig` with one does not say it."""


class ModelConfig(Strict):
    """Two towers and the heads on them, or a pair that was pretrained together.

    `model: {image: facebook/deit-tiny-patch16-224, text: sentence-transformers/all-MiniLM-L6-v2, dim: 256}`
    `model: {pair: laion/CLIP-ViT-B-32-laion2B-s34B-b79K}`
    """

    pair: str | None = None
    """A folder or hub name of two towers that were pretrained together (CLIP, SigLIP, ...), in place of
    `image` and `text`: towers, projections, temperature, preparation of pictures and texts are its own."""
    image: TowerSource | None = None
    """A Hugging Face folder or hub name, or a configuration with a `model_type` for random weights."""
    text: TowerSource | None = None
    """The same for the text tower."""
    dim: int = Field(256, ge=1)
    """Size of the shared embedding space."""
    image_size: int = Field(224, ge=8)
    """Side of the square picture that the image tower sees, in pixels."""
    image_pool: Pooling | None = None
    """What of the image tower's output stands for the picture: its first token, the mean, the last token,
    what the tower itself makes of it, or first token and mean of its last four layers (`layers`); None: as
    suits the tower."""
    text_pool: Pooling | None = None
    """The same for the text tower."""
    text_prefix: str = ""
    """Put before every text, in training and after: some towers want `"query: "`."""
    resize: Literal["squash", "crop"] = "squash"
    """How a picture becomes a square: `squash` keeps all of it, `crop` keeps its proportions."""
    mean: Channels | None = None
    """Mean of the channels, in [0, 1], that the image tower was trained with; None: as its processor file
    says."""
    std: Channels | None = None
    """Their deviation; given together with `mean`."""
    uni_heads: Literal["own", "shared"] = "own"
    """Heads of the uni-modal losses: their own (an MLP), or the cross head."""
    uni_dim: int = Field(256, ge=1)
    """Size of the space of the uni-modal losses, where they have heads of their own."""
    temperature: Positive = 0.07
    """Initial temperature of the image-text loss; learnable, never below 0.01."""
    bias: float | None = None
    """Initial bias of the sigmoid loss, which needs one (SigLIP begins with -10, and a temperature of 0.1);
    learnable. None: there is none."""
    dropout: Share | None = None
    """Dropout of the text tower while training; None keeps what its configuration says."""

    @model_validator(mode="after")
    def _towers_or_pair(self) -> Self:
        if self.pair is None and (self.image is None or self.text is None):
            raise ValueError("give image and text, or a pair")
        given = [name for name in OF_PAIRS if getattr(self, name) != type(self).model_fields[name].default]
        if self.pair is not None and given:
            raise ValueError(
                f"a pair has its own {', '.join(given)}: leave them out (null for image and text), or take a "
                "recipe for pairs: tune, tune_clip or tune_lora"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std together")
        return self

    @model_serializer(mode="wrap")
    def _without_what_the_pair_has(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return written if self.pair is None else {k: v for k, v in written.items() if k not in OF_PAIRS}


def _aside(val: Any) -> Any:
    wrong = isinstance(val, bool) or (isinstance(val, float) and not 0 < val < 1)
    if wrong or (isinstance(val, int) and val < 1):
        raise ValueError(f"give a split's name, a count, a share between 0 and 1, or null (got {val!r})")
    return val


class SplitConfig(Strict):
    """Names of splits; `val` may also be a count, or a share below 1, of items to set aside from train."""

    train: str | None = "train"
    """The split trained on; `+` joins several."""
    val: Annotated[str | float | int | None, BeforeValidator(_aside)] = "val"
    """The split looked at while training, or how many items, or which share of them, to set aside for it;
    None: nothing is measured."""


def _encoding(name: Any) -> Any:
    try:
        codecs.lookup(name)
    except (LookupError, TypeError):
        raise ValueError(f"no encoding that Python knows, such as utf-8 or cp1252 (got {name!r})") from None
    return name


def _no_column_twice(names: Any) -> Any:
    if isinstance(names, list | tuple) and (twice := [n for n in names if list(names).count(n) > 1]):
        raise ValueError(f"the column {twice[0]} is named twice: name it once")
    return names


Columns = Annotated[str | tuple[str, ...], BeforeValidator(_no_column_twice)]


class DataConfig(Strict):
    """Which items a run reads, and how: `data: {root: photos, split: {val: 0.1}, cache: disk}`."""

    root: str
    """A folder, or a captions file."""
    format: str | None = None
    """A name in `data.formats.FORMATS`, which reading the data checks; None: detected from the path."""
    image: Columns | None = None
    """The column with the images or their paths, or several, each with images of its own; None: known by its
    usual name. A dot enters nested data. A list or an object of paths is several images."""
    caption: Columns | None = None
    """The column with the captions, or several, `[title, tags.en, tags.de]`, whose names say the field and
    the language of their captions; None: known by its usual name. An empty list reads pictures without
    words."""
    split_column: str | None = None
    """The column that says which split a row is in; None: `split`, where there is one."""
    item: str | None = None
    """The column that tells items apart: rows of one item are its images and captions. `folder`, in a folder
    of pictures: each folder is an item. None: `image_id` or `item_id` where there is one, else the image."""
    language: str | None = None
    """The column with the language of a row's captions, as a code such as `en`."""
    encoding: Annotated[str, BeforeValidator(_encoding)] | None = None
    """Of text files; None: UTF-8, or UTF-16 with its mark."""
    split: SplitConfig = SplitConfig()
    """Which items are trained on, and which are held out."""
    max_tokens: int | None = Field(None, ge=3)
    """Tokens of a caption, special ones included; what is longer is cut. None: all that a pair was trained
    with, or 40."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether items with problems stop the run, or are left out, counted and listed."""
    cache: Literal["auto", "none", "memory", "disk"] = "auto"
    """Where decoded pictures are kept: nowhere, in memory, or in a memory-mapped file under the run; `auto`:
    in memory where they leave most of it free, else on the disk where there is room, and says so."""
    cache_size: int | None = Field(None, ge=8)
    """Side of the cached square in pixels; None: 8/7 of the model's image size."""


class Adapter(Strict):
    """Low-rank matrices beside a tower's attention and feed-forward weights (Hu et al. 2022, "LoRA")."""

    rank: int = Field(8, ge=1)
    """Rank of the matrices: how much they can change."""
    alpha: int = Field(16, ge=1)
    """The adapter counts alpha / rank times."""
    dropout: Share = 0.0
    """Dropout on what goes into the adapter."""


class LoRAConfig(Strict):
    """Which towers move by adapters: `lora: {image: {rank: 16}, text: {rank: 8}}`. A tower without one
    stands still.

    Needs the package peft (`pip install 'unicross[lora]'`). Checkpoints hold the weights with the adapters
    merged, so that they load as any other.
    """

    image: Adapter | None = Adapter()
    """Adapters of the image tower; None: it stands still."""
    text: Adapter | None = Adapter()
    """Adapters of the text tower; None: it stands still."""


class Train(Strict):
    """How a run computes, in all of its stages: `train: {batch_size: 256, compile: true}`."""

    start_from: str | None = None
    """A run or checkpoint folder with whose weights, heads and temperature training begins; its towers and
    heads must be those of `model`. None: the towers' own weights, and new heads."""
    batch_size: int = Field(128, ge=2)
    """Items of a batch, over all processes together."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of training; whatever embeds goes by `auto`: bf16 where the processor multiplies it
    natively."""
    micro_batch: int | None = Field(None, ge=1)
    """Items that pass the towers at a time; the gradient is that of the whole batch. None: all at once."""
    activation_checkpointing: bool = False
    """Compute the layers' activations again in the backward pass instead of keeping them: less memory,
    about a third more time (Chen et al. 2016)."""
    lora: LoRAConfig | None = None
    """Move small adapters in place of the towers' weights; None: the weights themselves."""
    patience: int | None = Field(None, ge=1)
    """End the run after so many looks at the validation items without a better one; None: never."""
    interpolate: bool = False
    """At the end, mix the best weights with those that the run began with, in the share that has the most
    rSum on the validation items and the data of `forgetting` together (Wortsman et al. 2022, "WiSE-FT"):
    tuning then costs less of what a pretrained pair knew."""
    correct_hubness: bool = False
    """At the end, take off each picture's and text's cosines what it is near to on average, by a sample of
    the training data, where that has more rSum on the validation items (Bogolin et al. 2022, "Querybank
    Normalisation"). Vectors then have four more dimensions than `model.dim`."""
    clip_norm: Positive | None = 1.0
    """Largest norm of the gradient; None: any."""
    validate_every: int = Field(1, ge=1)
    """Epochs between looks at the validation items; the end of the run always looks."""
    save_minutes: Positive = 5.0
    """Time between step checkpoints; the end of an epoch always saves one."""
    trackers: tuple[TrackerName, ...] = ()
    """Where figures are shown besides the run folder: TensorBoard (`RUN/tensorboard`), MLflow and Weights &
    Biases, which their own environment variables direct. Each is an extra of its name."""
    shard: bool = False
    """Spread weights and optimiser state over torchrun's processes: for towers too large for one GPU."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: PyTorch's choice."""
    compile: bool = False
    """Compile the towers' layers: a minute or two at the start, then 1.05 to 1.4 times faster on the CPU."""


class Recipe(Strict):
    """A whole run."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Of everything random: the same recipe, seed and machine give the same losses."""
    model: ModelConfig
    """Towers and heads, or a pretrained pair."""
    data: DataConfig
    """What is read, and how."""
    train: Train = Train()
    """How the run computes, in all of its stages."""
    forgetting: dict[str, str] = Field(default_factory=dict)
    """Other data by name, each a `data.root`, on whose validation split (all of it where it has none) the
    model is evaluated beside the run's own: what tuning costs elsewhere."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """The stretches of training, one after another."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        no_bias = self.model.bias is None and self.model.pair is None
        if no_bias and any(stage.losses.objective == "sigmoid" for stage in self.stages):
            raise ValueError(
                "the sigmoid loss has a bias: set model.bias=-10 model.temperature=0.1, as SigLIP"
            )
        if self.train.interpolate and self.train.start_from is None and self.model.pair is None:
            raise ValueError(
                "train.interpolate mixes with the weights that the run began with: set train.start_from, or "
                "begin with a model.pair"
            )
        if self.train.shard and (self.train.interpolate or self.train.correct_hubness or self.train.lora):
            raise ValueError(
                "train.shard goes neither with train.interpolate nor with train.correct_hubness nor with "
                "train.lora"
            )
        if self.train.correct_hubness and all(stage.losses.image_text == 0 for stage in self.stages):
            raise ValueError(
                "train.correct_hubness is for searching across images and texts: give the image-text loss a "
                "weight, or leave it out"
            )
        if self.train.shard and len({frozenset(stage.freeze) for stage in self.stages}) > 1:
            raise ValueError(
                "train.shard needs the same `freeze` in all stages: train them as runs of their own"
            )
        remembers = any(stage.remembers_images or stage.remembers_texts for stage in self.stages)
        if remembers and self.model.uni_heads == "own":
            raise ValueError("remembered views are of the shared space: set model.uni_heads=shared")
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
