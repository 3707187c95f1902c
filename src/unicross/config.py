"""A recipe: a whole run as plain, frozen, checked data. `recipe` reads and writes it as YAML.

Unknown keys are refused with their full path. The top-level mappings `optim`, `views`, `batches` and
`losses` are defaults: a stage's mapping of the same name is laid over them, so that a stage states only
what it changes. Nothing here knows the name of a method: CLIP, SLIP, LiT and the paper are recipes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Pooling = Literal["cls", "mean", "pooler"]
Part = Literal["image", "text", "image_head", "text_head", "temperature"]

MOVED: dict[str, set[Part]] = {
    "image_text": {"image", "text", "image_head", "text_head", "temperature"},
    "image_image": {"image", "image_head"},
    "text_text": {"text", "text_head"},
}
"""What each loss moves."""


def _tower(source: Any) -> Any:
    if not isinstance(source, str | dict):
        raise ValueError(f"give a folder or hub name, or a configuration with a model_type (got {source!r})")
    return source


Tower = Annotated[str | dict[str, Any], BeforeValidator(_tower)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Strict):
    """Two towers and the heads on them."""

    image: Tower
    """A Hugging Face folder or hub name, or a configuration with a `model_type` for random weights."""
    text: Tower
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


class DataConfig(Strict):
    """Which items a run reads, and how: `data: {root: photos, split: {val: 0.1}, cache: disk}`."""

    root: str
    """A folder, or a captions file."""
    format: str | None = None
    """A name in `data.formats.FORMATS`, which reading the data checks; None: detected from the path."""
    split: SplitConfig = SplitConfig()
    max_tokens: int = Field(40, ge=3)
    """Tokens of a caption, special ones included; what is longer is cut."""
    on_error: Literal["raise", "skip"] = "raise"
    """Whether items with problems stop the run, or are left out, counted and listed."""
    cache: Literal["none", "memory", "disk"] = "memory"
    """Where decoded pictures are kept: nowhere, in memory, or in a memory-mapped file under the run."""
    cache_size: int | None = Field(None, ge=8)
    """Side of the cached square in pixels; None: 8/7 of the model's image size."""


class Losses(Strict):
    """Weights of the losses; 0 means that the loss and its views are not computed."""

    image_text: Weight = 0.0
    image_image: Weight = 0.0
    text_text: Weight = 0.0
    image_temperature: Positive = 0.1
    text_temperature: Positive = 0.05
    soft: Share = 0.0
    """Share of an anchor's target that goes to other items, by how alike `batches.judge` finds them."""
    soft_temperature: Positive = 0.1
    """Of the softmax that divides that share by likeness."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.image_text == self.image_image == self.text_text == 0:
            raise ValueError(
                "every loss has weight 0: set at least one of image_text, image_image, text_text"
            )
        return self


class ImageView(Strict):
    """A random picture of a picture. Strengths follow SLIP (Mu et al. 2022) and SimCLR (Chen et al. 2020)."""

    crop: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the area that a crop keeps."""
    flip: Share = 0.5
    jitter: Share = 0.0
    """Probability of colour jitter (brightness, contrast, saturation .4, hue .1)."""
    grey: Share = 0.0
    blur: Share = 0.0
    size: float = Field(1.0, gt=0.0, le=1.0)
    """Side as a share of `model.image_size`, to whole patches: small views are cheap (Caron et al. 2020,
    "multi-crop"), and whole pictures are best seen larger than crops (Touvron et al. 2019)."""
    patch_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the patches, drawn for each picture, that the tower does not see (Li et al. 2023, "FLIP")."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.crop
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop must be two shares of the area, 0 < low <= high <= 1, got {low}, {high}")
        return self


class Views(Strict):
    image: ImageView = ImageView()
    """The picture that the image-text loss sees; also the first of the two uni-modal views."""
    image_uni: ImageView = ImageView(crop=(0.3, 1.0), jitter=0.8, grey=0.2, blur=0.5)
    """The second uni-modal view; both of them where there is no image-text loss."""
    text: Literal["dropout", "sibling", "perturb"] = "sibling"
    """The second text view: the same caption under other dropout, a sibling caption, or words dropped."""
    perturb: Share = 0.15
    """Share of the words that `perturb` drops or swaps."""
    pictures: int = Field(1, ge=1, le=2)
    """Views of an image that the image-text loss sees; two are both positives of each caption."""
    captions: int = Field(1, ge=1)
    """Captions of an item that the image-text loss sees, all positives of the image."""

    @model_validator(mode="after")
    def _captions_are_siblings(self) -> Self:
        if self.captions > 1 and self.text != "sibling":
            raise ValueError(
                f"captions={self.captions} makes the text views siblings: set text=sibling, or captions=1"
            )
        return self


class Batches(Strict):
    kind: Literal["random", "clustered"] = "random"
    by: Literal["joint", "image", "text"] = "joint"
    cluster_size: int = Field(32, ge=2)
    per_batch: int | None = Field(None, ge=1)
    """Clusters in a batch; None: as many as fit. The rest of the batch is random items."""
    chained: bool = False
    """Pack clusters that are near each other into a batch; otherwise any that chance brings together."""
    random_fraction: Share | tuple[Share, Share] = 0.0
    """Share of the epoch's batches that are random; two shares: in the stage's first and last epoch."""
    rest: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the pairs that sits each epoch out, so that it costs less and a stage can have more of them:
    the pairs (in clustered stages, the clusters) of the least loss rest most often."""
    recluster_every: int = Field(1, ge=1)
    """Epochs between rounds of clustering, and of choosing pseudo-pairs."""
    embed: Literal["reuse", "fresh"] = "reuse"
    """Embeddings of a round: those that training steps computed last, or all of them computed anew."""
    judge: Literal["model", "frozen_text"] = "model"
    """Who says which items are alike: the model of the last round, or captions under the untrained tower."""
    guard: Positive | None = 0.95
    """Mask a negative whose similarity exceeds this share of the anchor's positive similarity; None: off."""
    gallery: int | None = Field(None, ge=2)
    """Weigh negatives as a sample of so many items; None: as they are. See `losses.sample_weights`."""
    unpaired: int = Field(0, ge=0)
    """Images alone and texts alone added to each batch of a stage with an image-text loss."""
    pseudo: int = Field(0, ge=0)
    """Pseudo-pairs added to each batch of such a stage: images and texts alone that choose each other. None
    where the data hold no images alone or no texts alone."""

    def random_share(self, epoch: int, epochs: int) -> float:
        """Share of random batches in an epoch of a stage, counted from 0."""
        if isinstance(self.random_fraction, float):
            return self.random_fraction
        first, last = self.random_fraction
        return first + (last - first) * epoch / max(epochs - 1, 1)


class Optim(Strict):
    """AdamW with warm-up and a cosine to zero."""

    image_lr: Weight = 1e-4
    text_lr: Weight = 1e-4
    head_lr: Weight = 1e-3
    weight_decay: Weight = 0.05
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate per layer below the top."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    warmup: Share = 0.1
    """Share of the schedule spent warming up."""
    restart: bool = False
    """Begin a new schedule with this stage; otherwise it continues the one before."""


class Stage(Strict):
    name: str = Field(min_length=1)
    epochs: int = Field(ge=1)
    losses: Losses
    fresh: bool = False
    """Begin with the weights as they came, under a new schedule; the model so far only makes the first round
    (clusters, pseudo-pairs), as a teacher does for its student."""
    heads_first: bool = False
    """Before the first step, fit the cross heads and the temperature to the towers as they are, which sees
    each picture and caption once (Kumar et al. 2022, "LP-FT")."""
    freeze: tuple[Part, ...] = ()
    views: Views = Views()
    batches: Batches = Batches()
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _moving(self) -> Self:
        for loss, parts in MOVED.items():
            if getattr(self.losses, loss) > 0 and parts <= set(self.freeze):
                raise ValueError(
                    f"the {loss} loss moves nothing: all of {', '.join(sorted(parts))} are frozen; "
                    "freeze less, or set its weight to 0"
                )
        if self.batches.kind == "clustered" and self.losses.image_text == 0:
            raise ValueError(
                "clusters are of pairs and serve the image-text loss: give it a weight, or set kind=random"
            )
        if self.heads_first and self.losses.image_text == 0:
            raise ValueError("heads_first serves the image-text loss: give it a weight, or leave it out")
        if self.heads_first and (held := {"image_head", "text_head", "temperature"} & set(self.freeze)):
            raise ValueError(
                f"heads_first moves {', '.join(sorted(held))}: do not freeze that, or leave heads_first out"
            )
        if self.batches.pseudo > 0 and self.losses.image_text == 0:
            raise ValueError("batches.pseudo serves the image-text loss: give it a weight, or set pseudo=0")
        if self.batches.rest > 0 and self.losses.image_text == 0:
            raise ValueError("batches.rest goes by the image-text loss: give it a weight, or set rest=0")
        if self.losses.soft > 0 and self.batches.kind == "random" and self.batches.judge == "model":
            raise ValueError(
                "losses.soft needs someone to judge what is alike: set batches.judge=frozen_text, or "
                "batches.kind=clustered"
            )
        return self

    @property
    def image_views(self) -> tuple[ImageView, ...]:
        """The views of an image that pass the tower in a step."""
        views, losses = self.views, self.losses
        both = (
            views.image if losses.image_text > 0 else views.image_uni,
            views.image_uni if losses.image_image > 0 else views.image,
        )
        return both[: max(views.pictures * (losses.image_text > 0), 2 * (losses.image_image > 0))]

    @property
    def text_views(self) -> int:
        """How many views of a text pass the tower in a step."""
        return max(self.views.captions * (self.losses.image_text > 0), 2 * (self.losses.text_text > 0))


class Train(Strict):
    start_from: str | None = None
    """A run or checkpoint folder with whose weights, heads and temperature training begins; its towers and
    heads must be those of `model`. None: the towers' own weights, and new heads."""
    batch_size: int = Field(128, ge=2)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of training; whatever embeds goes by `auto`: bf16 where the processor multiplies it natively."""
    micro_batch: int | None = Field(None, ge=1)
    """Items that pass the towers at a time; the gradient is that of the whole batch. None: all at once."""
    clip_norm: Positive | None = 1.0
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay per step of the averaged weights that are evaluated and kept as best; None: off."""
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
        if self.train.shard and self.train.ema is not None:
            raise ValueError("train.shard and train.ema do not go together: set one of them only")
        if self.stages[0].fresh:
            raise ValueError(f"stage {names[0]!r} is the first and fresh anyway: leave `fresh` out there")
        if self.train.shard and any(stage.fresh for stage in self.stages):
            raise ValueError("train.shard and fresh stages do not go together: set one of them only")
        if self.train.shard and len({frozenset(stage.freeze) for stage in self.stages}) > 1:
            raise ValueError(
                "train.shard needs the same `freeze` in all stages: train them as runs of their own"
            )
        for stage in self.stages:
            batches = stage.batches
            if batches.kind == "clustered":
                clusters = batches.per_batch or 1
                if clusters * batches.cluster_size > self.train.batch_size:
                    raise ValueError(
                        f"stage {stage.name!r}: {clusters} clusters of {batches.cluster_size} do not fit "
                        f"in a batch of {self.train.batch_size}: lower cluster_size or per_batch"
                    )
        return self

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)
