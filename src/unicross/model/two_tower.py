"""Two towers that meet in one embedding space.

A checkpoint is a folder of safetensors and JSON that loads with nothing else at hand.

Letters: B batch, L tokens, S side of a picture, H a tower's width, D the shared space.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from unicross.config import ModelConfig
from unicross.data.images import IMAGES_AT_ONCE, AnyImage, Pixels, decode_batches
from unicross.data.items import strings
from unicross.data.preparation import PatchCanvas
from unicross.data.tokens import TEXTS_AT_ONCE, TokenizedTexts
from unicross.device import pick_device, send
from unicross.errors import CheckpointError, DataError, RecipeError
from unicross.losses import Objective
from unicross.model.hub import CONFIGS
from unicross.model.hubness import EXTRA
from unicross.model.inference import Floats, as_numpy, fetched, inference
from unicross.model.pairs import canvas_inputs
from unicross.model.parts import SETTINGS, WEIGHTS, Parts, from_checkpoint, from_config
from unicross.prefetch import made_ahead
from unicross.run import checkpoint_at


class TwoTower(nn.Module):
    """An image tower and a text tower with one embedding space.

    A vector is the same, alone or among others, but for rounding: within 1e-5 of its cosines in float32,
    within 0.02 in bf16, which is used where the processor multiplies it natively.

    >>> model = TwoTower.load("runs/mine/best")
    >>> scores = model.encode_texts(["a dog in the snow"]) @ model.encode_images(["dog.jpg", "cat.jpg"]).T
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.max_tokens = parts.max_tokens
        self.picture_rules = parts.pictures
        self.text_rules = parts.texts
        self.max_scale = parts.max_scale
        """Largest 1 / temperature."""
        self.image = parts.image
        self.text = parts.text
        self.log_scale = nn.Parameter(torch.tensor(parts.log_scale))
        self.hubness = parts.hubness
        """What corrects the vectors, once a model is trained; see `train.correct_hubness`."""
        self.bias = None if parts.bias is None else nn.Parameter(torch.tensor(parts.bias))
        """Of the scores in the sigmoid loss."""
        self.objective: Objective = parts.objective
        """What the model was trained with, and is where a recipe does not say."""
        for name in ("mean", "std"):
            values = torch.tensor(getattr(parts.pictures, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        if self.config.dropout is not None:
            for module in self.text.backbone.modules():
                if isinstance(module, nn.Dropout):
                    module.p = self.config.dropout

    @classmethod
    def create(
        cls, config: ModelConfig, *, max_tokens: int | None = None, captions: Iterable[str] = ()
    ) -> Self:
        """Towers, or a pair, as the configuration names them. `captions` train the tokenizer of a random text
        tower. `max_tokens` of None: as the pair has it, or 40.

        Raises CheckpointError where a tower cannot be loaded or is not finite, RecipeError for one that
        cannot be built.
        """
        model = cls(from_config(config, max_tokens, captions))
        model._check_finite(config.pair or f"{config.image} and {config.text}")
        return model

    def _check_finite(self, source: str) -> None:
        """Raise CheckpointError for weights and rules of preparation that make vectors which are not
        finite."""
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise CheckpointError(
                    f"{source}: the weight {name} is not finite (nan or infinite): its training went wrong, "
                    "or the file is damaged: take another checkpoint"
                )
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise CheckpointError(
                f"{source}: pictures cannot be prepared with mean {self.picture_rules.mean} and deviation "
                f"{self.picture_rules.std}: both must be finite, and the deviation above zero"
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
        """A model in eval mode: from a checkpoint folder, from the best checkpoint of a run folder, or a
        pretrained pair from a folder or hub name (`laion/CLIP-ViT-B-32-laion2B-s34B-b79K`).

        `config` and `max_tokens` replace a checkpoint's own, for training that begins with its weights.
        Raises CheckpointError where there is none, it cannot be read, or `config` has other towers or heads.
        """
        folder = checkpoint_at(Path(path))
        if not (folder / SETTINGS).is_file():
            return cls._load_pair(path, max_tokens).to(pick_device(device)).eval()
        try:
            parts, weights = from_checkpoint(folder, config, max_tokens)
            model = cls(parts)
            model.load_state_dict(weights)
            model._check_finite(str(folder))
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

    @classmethod
    def _load_pair(cls, path: Path | str, max_tokens: int | None) -> Self:
        if Path(path).is_dir() and not any((Path(path) / name).is_file() for name in CONFIGS):
            raise CheckpointError(
                f"{path}: not a checkpoint (no {SETTINGS} in it), nor a run folder with a best one, nor a "
                f"pretrained pair (no {' or '.join(CONFIGS)})"
            )
        return cls.create(ModelConfig(pair=str(path), uni_heads="shared"), max_tokens=max_tokens)

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
        return {"model": self.config.model_dump(mode="json"), **self._rules()}

    def _rules(self) -> dict[str, Any]:
        """What besides the weights decides over a vector."""
        return {
            "image_pool": self.image.pool,
            "text_pool": self.text.pool,
            "max_tokens": self.max_tokens,
            "objective": self.objective,
            "max_scale": self.max_scale if math.isfinite(self.max_scale) else None,
            **asdict(self.picture_rules),
            "texts": asdict(self.text_rules),
        }

    def preparation(self) -> list[str]:
        """How pictures and texts are prepared, as sentences for the user."""
        return [
            f"pictures: {self.picture_rules}",
            f"texts: at most {self.max_tokens} tokens, {self.text_rules}; pooling: {self.image.pool} of "
            f"pictures, {self.text.pool} of texts",
        ]

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    @property
    def dim(self) -> int:
        return self.config.dim + (0 if self.hubness is None else EXTRA)

    def view_side(self, size: float) -> int:
        """Side in pixels of a picture shown at a share of `image_size`: whole patches, one at least."""
        whole, patch = self.config.image_size, self.image.patch
        return whole if size == 1 else min(whole, max(patch, patch * round(size * whole / patch)))

    @property
    def scale(self) -> Tensor:
        """1 / temperature of the image-text loss, at most `max_scale`; a scalar tensor with gradient."""
        return self.log_scale.clamp(max=math.log(self.max_scale)).exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Put the temperature back on its bound after a step beyond it, where its gradient would be zero."""
        self.log_scale.clamp_(max=math.log(self.max_scale))

    def fingerprint(self) -> str:
        """A short hash of rules and weights: equal for equal models, wherever they are kept."""
        digest = hashlib.sha256(json.dumps(self._rules(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()[:16]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Values in [0, 1] -> what the image tower expects. [B, 3, S, S]."""
        return (pixels - self.mean) / self.std

    @property
    def images_at_once(self) -> int:
        """Pictures that pass the image tower together: on a GPU enough that its work takes longer than to
        order it."""
        return IMAGES_AT_ONCE if self.device.type == "cpu" else 4 * IMAGES_AT_ONCE

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Floats:
        """Squares [B, S, S, 3] of this model's size -> unit embeddings [B, D]."""
        return self.start_pixels(pixels)()

    def start_pixels(self, pixels: NDArray[np.uint8], *, pooled: bool = False) -> Callable[[], Floats]:
        """Begin `encode_pixels`: a call of what is returned gives the embeddings, or the image tower's
        features before its head [B, H] (`pooled`). A GPU computes while its next pictures are prepared."""
        with self._inference():
            features = self._pooled_pixels(pixels)
            return fetched(features if pooled else self.embed_images(features))

    def embed_images(self, pooled: Tensor) -> Tensor:
        """Features of the image tower [B, H] -> unit vectors as they are searched [B, D], float32."""
        vectors = self.image.embed(pooled)
        return vectors if self.hubness is None else self.hubness.of_images(vectors)

    def embed_texts(self, pooled: Tensor) -> Tensor:
        """Features of the text tower [B, H] -> unit vectors as they are searched [B, D], float32."""
        vectors = self.text.embed(pooled)
        return vectors if self.hubness is None else self.hubness.of_texts(vectors)

    def whole_pictures(self, pixels: Tensor) -> dict[str, Tensor]:
        """Squares uint8 [B, S, S, 3] of this model's size, on its device, as the image tower takes them."""
        shown = self.normalise(pixels.permute(0, 3, 1, 2).float() / 255)
        canvas = self.picture_rules.resize
        if not isinstance(canvas, PatchCanvas):
            return {"pixel_values": shown}
        tiles = pixels[:, *canvas.spare_tile]  # of a GPU's pictures only these are fetched
        return canvas_inputs(canvas, shown, canvas.shapes(tiles.cpu().numpy()))

    def _pooled_pixels(self, pixels: NDArray[np.uint8]) -> Tensor:
        on_device = send(torch.from_numpy(np.require(pixels, requirements="W")), self.device)
        pooled: Tensor = self.image(**self.whole_pictures(on_device))
        return pooled

    def encode_images(self, images: Sequence[AnyImage], batch_size: int | None = None) -> Floats:
        """Paths, sources of bytes, PIL images or [H, W, 3] uint8 arrays -> unit embeddings [N, D].

        `batch_size`: pictures that pass the tower together; None: `images_at_once`. Raises DataError for a
        picture that cannot be decoded.
        """
        if isinstance(images, str | Path):
            raise DataError("encode_images takes a list of pictures: put the one picture into a list")
        rules, size = self.picture_rules, batch_size or self.images_at_once
        started = (
            self.start_pixels(np.stack([_readable(square) for square in batch]))
            for batch in decode_batches(images, rules.side, rules.resize, size)
        )
        parts = [vectors() for vectors in made_ahead(started)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def encode_tokens(self, ids: Tensor, mask: Tensor) -> Floats:
        """Token ids and their mask, both [B, L] -> unit embeddings [B, D]."""
        with self._inference():
            pooled = self.text(input_ids=ids.to(self.device), mask=mask.to(self.device))
            return as_numpy(self.embed_texts(pooled))

    def pool_tokens(self, ids: Tensor, mask: Tensor) -> Floats:
        """Token ids and their mask, both [B, L] -> the text tower's features before its head [B, H]."""
        with self._inference():
            pooled = self.text(input_ids=ids.to(self.device), mask=mask.to(self.device))
            return as_numpy(pooled.float())

    def encode_texts(self, texts: Sequence[str], batch_size: int = TEXTS_AT_ONCE) -> Floats:
        """Texts -> unit embeddings [N, D]."""
        if isinstance(texts, str):
            raise DataError("encode_texts takes a list of texts: put the one text into a list")
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise DataError(f"encode_texts takes texts, got {strange[0]!r}")
        return self.tokenized(texts).encoded(self.encode_tokens, self.dim, batch_size)

    def tokenized(self, texts: Sequence[str]) -> TokenizedTexts:
        """Texts as the text tower takes them. Longer ones are cut at the model's `max_tokens`."""
        return TokenizedTexts(strings(texts), self.tokenizer, self.max_tokens, self.text_rules)

    def _inference(self) -> AbstractContextManager[None]:
        return inference(self, (self.image.backbone, self.text.backbone), self.device)


def _readable(square: Pixels | DataError) -> Pixels:
    if isinstance(square, DataError):
        raise square
    return square
