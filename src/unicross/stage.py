"""A stage of a recipe: losses with weights, views, how batches are drawn, and the optimiser.

`config` has the rest of a recipe. Nothing here knows the name of a method: CLIP, SLIP, LiT and the paper are
recipes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
ModelPart = Literal["image", "text", "image_head", "text_head", "temperature"]

MOVED: dict[str, set[ModelPart]] = {
    "image_text": {"image", "text", "image_head", "text_head", "temperature"},
    "image_image": {"image", "image_head"},
    "text_text": {"text", "text_head"},
}
"""What each loss moves."""

NEGATIVES_FROM = 1000
"""How many items a clustered batch stands for where the recipe does not say."""


class Strict(BaseModel):
    """Frozen plain data in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Losses(Strict):
    """Weights of the losses; 0 means that the loss and its views are not computed.

    `losses: {image_text: 1.0, text_text: 0.1}` adds a tenth of the text-text loss to the image-text loss.
    Temperatures divide cosines; that of the image-text loss is learned (`model.temperature`).
    """

    objective: Literal["infonce", "sigmoid"] | None = None
    """InfoNCE, a softmax over the batch, or the sigmoid of SigLIP (Zhai et al. 2023), for all three; None:
    what the pair was trained with, else InfoNCE."""
    image_text: Weight = 0.0
    """Weight of the cross-modal loss between images and texts."""
    image_image: Weight = 0.0
    """Weight of the uni-modal loss between two views of an item's images."""
    text_text: Weight = 0.0
    """Weight of the uni-modal loss between two views of an item's texts."""
    image_temperature: Positive = 0.1
    """Temperature of the image-image loss."""
    text_temperature: Positive = 0.05
    """Temperature of the text-text loss."""

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.image_text == self.image_image == self.text_text == 0:
            raise ValueError(
                "every loss has weight 0: set at least one of image_text, image_image, text_text"
            )
        return self


class ImageView(Strict):
    """A random picture of a picture. Strengths follow SLIP (Mu et al. 2022) and SimCLR (Chen et al. 2020).

    `{crop: [0.3, 1.0], jitter: 0.8}` cuts out 30 to 100 % of the area and changes the colours of 80 % of the
    pictures.
    """

    crop: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the area that a crop keeps."""
    flip: Share = 0.5
    """Probability of mirroring."""
    jitter: Share = 0.0
    """Probability of colour jitter (brightness, contrast, saturation .4, hue .1)."""
    grey: Share = 0.0
    """Probability of losing all colour."""
    blur: Share = 0.0
    """Probability of blurring."""
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
    """How an item is shown: `views: {captions: 2, image: {patch_dropout: 0.5}}`."""

    image: ImageView = ImageView()
    """The picture that the image-text loss sees; also the first of the two uni-modal views."""
    remembered: bool = False
    """Whether the uni-modal losses compare a view with what earlier steps made of the item's images, or of
    its captions, among those of all items (see `losses.against_remembered`), in place of a second view, which
    costs a forward. Where no item has several images, or several captions, there is no such loss; nor, with
    `text: kind`, where none has captions of two kinds. `batches.mask_above` masks nothing of what is
    remembered."""
    image_uni: ImageView | None = ImageView(crop=(0.3, 1.0), jitter=0.8, grey=0.2, blur=0.5)
    """The second uni-modal view, of another image of the item where it has one; both of them where there is
    no image-text loss. None: as `image`, and of other images alone: where no item has two, there is no
    image-image loss and the image-text loss sees one image of each."""
    text: Literal["dropout", "sibling", "kind"] = "sibling"
    """The second text view: the same caption under other dropout; another caption of the item; or one of
    another kind, in another language or of another field. Kind: where no item has captions of two kinds,
    there is no text-text loss and the image-text loss sees one caption of each."""
    languages: Literal["counted", "even"] = "counted"
    """Which captions have their turn: all alike, or each language of an item as often as another."""
    captions: int = Field(1, ge=1)
    """Captions of an item that the image-text loss sees, all positives of its images."""
    images: int = Field(1, ge=1)
    """Images of an item that the image-text loss sees, all positives of its captions."""

    @model_validator(mode="after")
    def _captions_are_siblings(self) -> Self:
        if self.captions > 1 and self.text == "dropout":
            raise ValueError(
                f"captions={self.captions} makes the text views siblings: set text=sibling, or captions=1"
            )
        return self


class Batches(Strict):
    """Which items meet in a batch.

    `batches: {kind: clustered, random_fraction: 0.25}` packs clusters of four near items into three quarters
    of the batches.
    """

    kind: Literal["random", "clustered"] = "random"
    """Random batches, or batches packed from clusters of near items."""
    cluster_size: int = Field(4, ge=2)
    """Items of a cluster; a batch holds as many clusters as fit."""
    random_fraction: Share | tuple[Share, Share] = 0.0
    """Share of the epoch's batches that are random; two shares: in the stage's first and last epoch."""
    recluster_every: int = Field(1, ge=1)
    """Epochs between rounds: of clustering, of looking for suspects."""
    drop_suspects: bool = False
    """In each round, leave out the pairs that look wrong to the model (see `suspects.wrong_pairs`)."""
    mask_above: Positive | None = None
    """Mask a negative whose similarity exceeds this share of the anchor's positive similarity; None: off."""
    negatives_from: int | None = Field(None, ge=2)
    """Weigh negatives as a sample of so many items (see `losses.sample_weights`); None: as they are. Where it
    is not said, 1,000 in clustered batches and None in random ones."""

    @model_validator(mode="before")
    @classmethod
    def _clusters_stand_for_many_items(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("kind") == "clustered":
            return {"negatives_from": NEGATIVES_FROM} | raw
        return raw

    def random_share(self, epoch: int, epochs: int) -> float:
        """Share of random batches in an epoch of a stage, counted from 0."""
        if isinstance(self.random_fraction, float):
            return self.random_fraction
        first, last = self.random_fraction
        return first + (last - first) * epoch / max(epochs - 1, 1)


class Optim(Strict):
    """AdamW with warm-up and a cosine to zero: `optim: {image_lr: 5e-5, warmup: 0.05}`."""

    image_lr: Weight = 1e-4
    """Highest learning rate of the image tower."""
    text_lr: Weight = 1e-4
    """Highest learning rate of the text tower."""
    head_lr: Weight = 1e-3
    """Highest learning rate of the heads."""
    weight_decay: Weight = 0.05
    """AdamW's decay of the weights."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """AdamW's decay of its two running means."""
    warmup: Share = 0.1
    """Share of the schedule spent warming up."""
    restart_schedule: bool = False
    """Begin a new schedule with this stage; otherwise it continues the one before."""


class FrozenLayers(Strict):
    """How many of a tower's layers, from the bottom, do not move: `freeze_layers: {image: 6, text: 9}`.

    Embeddings (patches, words, positions) lie below the first layer and stay with it.
    """

    image: int = Field(0, ge=0)
    """Layers of the image tower."""
    text: int = Field(0, ge=0)
    """Layers of the text tower."""


class Stage(Strict):
    """A stretch of training: `{name: align, epochs: 5, losses: {image_text: 1.0}}`."""

    name: str = Field(min_length=1)
    """Its name in logs and notes; no two stages have the same."""
    epochs: int = Field(ge=0)
    """How often it goes through the data; 0: it fits its heads, and that is all."""
    losses: Losses
    """Which losses are computed, and their weights."""
    fit_heads: bool = False
    """Before the first step, fit the cross heads and the temperature, but what is frozen of them, to the
    towers as they are, which sees each picture and caption once (Kumar et al. 2022, "LP-FT"). New heads begin
    as canonical directions (see `unicross.canonical`)."""
    match_unpaired: bool = False
    """With `fit_heads`, let new heads match images only with texts only, and be fitted to such pairs too."""
    freeze: tuple[ModelPart, ...] = ()
    """Parts that do not move."""
    freeze_layers: FrozenLayers = FrozenLayers()
    """How many of a tower's layers, from the bottom, do not move."""
    views: Views = Views()
    """How an item is shown."""
    batches: Batches = Batches()
    """Which items meet in a batch."""
    optim: Optim = Optim()
    """Learning rates and their schedule."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        cross_modal, frozen = self.losses.image_text > 0, set(self.freeze)
        checks = [
            (
                getattr(self.losses, loss) > 0 and parts <= frozen,
                f"the {loss} loss moves nothing: all of {', '.join(sorted(parts))} are frozen; "
                "freeze less, or set its weight to 0",
            )
            for loss, parts in MOVED.items()
        ]
        checks += [
            (
                self.batches.kind == "clustered" and not cross_modal,
                "clusters are of pairs and serve the image-text loss: give it a weight, or set kind=random",
            ),
            (
                self.fit_heads and not cross_modal,
                "fit_heads serves the image-text loss: give it a weight, or leave it out",
            ),
            (
                self.epochs == 0 and not self.fit_heads,
                "a stage of 0 epochs does nothing but fit heads: set fit_heads=true, or more epochs",
            ),
            (
                self.fit_heads and {"image_head", "text_head"} <= frozen,
                "fit_heads moves the heads: freeze one of them at most, or leave fit_heads out",
            ),
            (
                self.match_unpaired and not self.fit_heads,
                "match_unpaired serves the fitting of heads: set fit_heads=true, or leave it out",
            ),
            (
                self.batches.drop_suspects and not cross_modal,
                "batches.drop_suspects serves the image-text loss: give it a weight, or leave it out",
            ),
            (
                (self.remembers_images or self.remembers_texts) and not cross_modal,
                "remembered views are those of the image-text loss: give it a weight, or set "
                "views.remembered=false",
            ),
        ]
        for is_wrong, message in checks:
            if is_wrong:
                raise ValueError(message)
        return self

    @property
    def remembers_images(self) -> bool:
        """Whether the image-image loss compares images with what earlier steps made of them."""
        return self.losses.image_image > 0 and self.views.remembered

    @property
    def remembers_texts(self) -> bool:
        """Whether the text-text loss compares texts with what earlier steps made of them."""
        return self.losses.text_text > 0 and self.views.remembered

    @property
    def image_views(self) -> tuple[ImageView, ...]:
        """The views of an image that pass the tower in a step."""
        views, losses = self.views, self.losses
        if losses.image_text == 0:
            return (views.image_uni or views.image,) * 2 if losses.image_image > 0 else ()
        needs_second = losses.image_image > 0 and views.images == 1 and not self.remembers_images
        return (views.image,) * views.images + (views.image_uni or views.image,) * needs_second

    @property
    def text_views(self) -> int:
        """How many views of a text pass the tower in a step."""
        of_uni = 0 if self.losses.text_text == 0 else 1 if self.remembers_texts else 2
        return max(self.views.captions * (self.losses.image_text > 0), of_uni)

    def without(self, *, images: bool, texts: bool) -> Stage:
        """The stage without its image-image loss, or its text-text loss, and with one image, or one caption,
        of each item."""
        losses, views = self.losses.model_dump(), self.views.model_dump()
        if images:
            losses["image_image"], views["images"] = 0.0, 1
        if texts:
            losses["text_text"], views["captions"] = 0.0, 1
        return Stage.model_validate({**self.model_dump(), "losses": losses, "views": views})
