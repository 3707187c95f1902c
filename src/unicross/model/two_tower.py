"""Two towers that meet in one embedding space.

A checkpoint is a folder of safetensors and JSON that loads with nothing else at hand.

Letters: B batch, L tokens, S side of a picture, H a tower's width, D the shared space.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unicross.config import ModelConfig
from unicross.data.images import IMAGES_AT_ONCE, AnyImage, Pixels, decode_batches
from unicross.data.items import strings
from unicross.data.tokens import TEXTS_AT_ONCE, TokenizedTexts
from unicross.device import autocast, pick_device
from unicross.errors import CheckpointError, DataError, RecipeError
from unicross.losses import Objective
from unicross.model.backbones import (
    backbone_from_folder,
    image_backbone,
    mean_std,
    require_source,
    text_backbone,
)
from unicross.model.kernels import inference_attention, patches_as_products
from unicross.model.tokenizer import load_tokenizer, train_tokenizer
from unicross.model.tower import Tower, check_length, prefix_tokens
from unicross.run import checkpoint_at

MAX_SCALE = 100.0
"""Largest 1 / temperature (Radford et al. 2021)."""
WEIGHTS, SETTINGS = "model.safetensors", "model.json"
PARTS = ("image", "text", "dim", "image_pool", "text_pool", "uni_heads", "uni_dim")
"""What weights belong to, of a `ModelConfig`."""

Floats = NDArray[np.float32]


class TwoTower(nn.Module):
    """An image tower and a text tower with one embedding space.

    A vector is the same, alone or among others, but for rounding: within 1e-5 of its cosines in float32,
    within 0.02 in bf16, which is used where the processor multiplies it natively.

    >>> model = TwoTower.load("runs/mine/best")
    >>> scores = model.encode_texts(["a dog in the snow"]) @ model.encode_images(["dog.jpg", "cat.jpg"]).T
    """

    def __init__(
        self,
        config: ModelConfig,
        image: PreTrainedModel,
        text: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_tokens: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.image = Tower(image, config.image_pool, prefix_tokens(image, config.image_pool), config)
        patches_as_products(image)  # after the check, in which a convolution refuses too large patches
        check_length(text, config.text_pool, max_tokens)
        self.text = Tower(text, config.text_pool, 0, config)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.bias: nn.Parameter | None = None
        if config.bias is not None:
            self.bias = nn.Parameter(torch.tensor(config.bias))
        self.objective: Objective = "infonce"
        """What the model was trained with, and is where a recipe does not say."""
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        if config.dropout is not None:
            for module in self.text.backbone.modules():
                if isinstance(module, nn.Dropout):
                    module.p = config.dropout

    @classmethod
    def create(cls, config: ModelConfig, *, max_tokens: int, captions: Iterable[str] = ()) -> Self:
        """Towers as the configuration names them. `captions` train the tokenizer of a random text tower.

        Raises CheckpointError where a tower cannot be loaded, RecipeError for one that cannot be built.
        """
        for source in (config.image, config.text):
            require_source(source)
        if isinstance(config.text, dict):
            tokenizer = train_tokenizer(captions, config.text.get("vocab_size", 8192))
        else:
            tokenizer = load_tokenizer(config.text)
        mean, std = mean_std(config.image)
        return cls(
            config,
            image_backbone(config.image, config.image_size),
            text_backbone(config.text, len(tokenizer)),
            tokenizer,
            max_tokens=max_tokens,
            mean=mean,
            std=std,
        )

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str | torch.device | None = None,
        *,
        config: ModelConfig | None = None,
        max_tokens: int | None = None,
    ) -> Self:
        """A model from a checkpoint folder, or from the best checkpoint of a run folder, in eval mode.

        `config` and `max_tokens` replace the checkpoint's own, for training that begins with its weights.
        Raises CheckpointError where there is none, it cannot be read, or `config` has other towers or heads.
        """
        folder = checkpoint_at(Path(path))
        if not (folder / SETTINGS).is_file():
            raise CheckpointError(
                f"{path}: not a checkpoint (no {SETTINGS} in it) nor a run folder with a best one"
            )
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            saved = ModelConfig.model_validate(settings["model"])
            if config is not None:
                _check_parts(folder, saved, config)
            model = cls(
                config or saved,
                backbone_from_folder(folder / "image"),
                backbone_from_folder(folder / "text"),
                load_tokenizer(folder / "text"),
                max_tokens=max_tokens or settings["max_tokens"],
                mean=settings["mean"],
                std=settings["std"],
            )
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            SafetensorError,
            RecipeError,
        ) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder}: the checkpoint cannot be read: {reason}") from error
        return model.to(pick_device(device)).eval()

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the checkpoint into an existing folder. The caller makes it whole by renaming the folder.

        `weights`: the state, where this process's is only a part of it.
        """
        weights = self.state_dict() if weights is None else weights
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        self.image.backbone.config.save_pretrained(folder / "image")
        self.text.backbone.config.save_pretrained(folder / "text")
        self.tokenizer.save_pretrained(folder / "text")
        (folder / SETTINGS).write_text(json.dumps(self._settings(), indent=2), encoding="utf-8")

    def _settings(self) -> dict[str, Any]:
        return {
            "model": self.config.model_dump(mode="json"),
            "max_tokens": self.max_tokens,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    @property
    def dim(self) -> int:
        return self.config.dim

    def view_side(self, size: float) -> int:
        """Side in pixels of a picture shown at a share of `image_size`: whole patches, one at least."""
        whole, patch = self.config.image_size, self.image.backbone.config.patch_size
        return whole if size == 1 else min(whole, max(patch, patch * round(size * whole / patch)))

    @property
    def scale(self) -> Tensor:
        """1 / temperature of the image-text loss, at most MAX_SCALE; a scalar tensor with gradient."""
        return self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Put the temperature back on its bound after a step beyond it, where its gradient would be zero."""
        self.log_scale.clamp_(max=math.log(MAX_SCALE))

    def fingerprint(self) -> str:
        """A short hash of settings and weights: equal for equal models, wherever they are kept."""
        digest = hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()[:16]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Values in [0, 1] -> what the image tower expects. [B, 3, S, S]."""
        return (pixels - self.mean) / self.std

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Floats:
        """Squares [B, S, S, 3] of this model's size -> unit embeddings [B, D]."""
        with self._inference():
            return _numpy(self.image.embed(self._pooled_pixels(pixels)))

    def pool_pixels(self, pixels: NDArray[np.uint8]) -> Floats:
        """Squares [B, S, S, 3] -> the image tower's pooled features, unit vectors [B, H]."""
        with self._inference():
            return _numpy(F.normalize(self._pooled_pixels(pixels).float(), dim=-1))

    def _pooled_pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        whole = torch.from_numpy(np.require(pixels, requirements="W")).to(self.device)
        shown = self.normalise(whole.permute(0, 3, 1, 2).float() / 255)
        pooled: Tensor = self.image(pixel_values=shown)
        return pooled

    def encode_images(self, images: Sequence[AnyImage], batch_size: int = IMAGES_AT_ONCE) -> Floats:
        """Paths, sources of bytes, PIL images or [H, W, 3] uint8 arrays -> unit embeddings [N, D].

        Raises DataError for a picture that cannot be decoded.
        """
        if isinstance(images, str | Path):
            raise DataError("encode_images takes a list of pictures: put the one picture into a list")
        parts = []
        for batch in decode_batches(images, self.config.image_size, self.config.resize, batch_size):
            squares = [_readable(square) for square in batch]
            parts.append(self.encode_pixels(np.stack(squares)))
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode_tokens(self, ids: Tensor, mask: Tensor) -> Floats:
        """Token ids and their mask, both [B, L] -> unit embeddings [B, D]."""
        with self._inference():
            pooled = self.text(input_ids=ids.to(self.device), mask=mask.to(self.device))
            return _numpy(self.text.embed(pooled))

    def pool_tokens(self, ids: Tensor, mask: Tensor) -> Floats:
        """Token ids and their mask, both [B, L] -> the text tower's pooled features, unit vectors [B, H]."""
        with self._inference():
            pooled = self.text(input_ids=ids.to(self.device), mask=mask.to(self.device))
            return _numpy(F.normalize(pooled.float(), dim=-1))

    def encode_texts(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> Floats:
        """Texts -> unit embeddings [N, D]. Longer ones are cut at the model's `max_tokens`."""
        if isinstance(texts, str):
            raise DataError("encode_texts takes a list of texts: put the one text into a list")
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise DataError(f"encode_texts takes texts, got {strange[0]!r}")
        vectors = np.zeros((len(texts), self.dim), np.float32)
        tokens = TokenizedTexts(strings(texts), self.tokenizer, self.max_tokens)
        for rows in tokens.batches(np.arange(len(texts)), batch_size):
            padded = tokens.tokens(rows)
            vectors[rows] = self.encode_tokens(padded.ids, padded.mask)
        return vectors

    @contextmanager
    def _inference(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            with (
                torch.no_grad(),  # what FSDP gathers in inference_mode cannot be trained afterwards
                autocast(self.device, "auto"),
                torch.compiler.set_stance("force_eager"),  # layers compiled for training's shapes only
                inference_attention(self.image.backbone),
                inference_attention(self.text.backbone),
            ):
                yield
        finally:
            self.train(training)


def _check_parts(folder: Path, saved: ModelConfig, config: ModelConfig) -> None:
    there, here = saved.model_dump(include=set(PARTS)), config.model_dump(include=set(PARTS))
    differing = [
        f"model.{key} is {there[key]!r} there, {here[key]!r} here" for key in PARTS if there[key] != here[key]
    ]
    if differing:
        raise CheckpointError(
            f"{folder}: its weights need the model that they are of: {'; '.join(differing)}"
        )


def _readable(square: Pixels | DataError) -> Pixels:
    if isinstance(square, DataError):
        raise square
    return square


def _numpy(tensor: Tensor) -> Floats:
    return tensor.float().cpu().numpy()
