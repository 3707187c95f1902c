"""What a pretrained model's own processor does to a picture, read from its files and tried.

transformers 5 writes `processor_config.json` only, versions before it `preprocessor_config.json`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor

from unicross.data.preparation import ExactResize, PatchCanvas, PictureRules
from unicross.errors import CheckpointError
from unicross.model.hub import find_file, first_line, read_json
from unicross.model.weights import quiet_transformers

FILES = ("preprocessor_config.json", "processor_config.json")
TOLERANCE = 1e-5
"""Of a picture's values, which lie in about [-2.5, 2.5]."""


def mean_std(source: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the channels, from either processor file; None where neither says them."""
    for name in FILES:
        if path := find_file(source, name):
            raw = read_json(path)
            raw = raw.get("image_processor", raw)
            if "image_mean" in raw and "image_std" in raw:
                return tuple(raw["image_mean"]), tuple(raw["image_std"])
    return None


def picture_rules(source: str) -> PictureRules:
    """What a pair's own processor does, to the pixel. Raises CheckpointError where that cannot be
    followed."""
    if not any(find_file(source, name) for name in FILES):
        raise CheckpointError(
            f"{source}: it has no {' or '.join(FILES)}, so nobody knows how its pictures are prepared: add "
            f"the "
            "one of the model that it was made from"
        )
    try:
        with quiet_transformers():
            processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: its image processor cannot be made: {first_line(error)}") from error
    resize = _resize(source, processor)
    mean, std = _mean_std(processor, resize.side)
    rules = PictureRules(resize.side, resize, mean, std)
    _check_equal(source, processor, rules)
    return rules


def normalised(square: NDArray[np.uint8], rules: PictureRules) -> NDArray[np.float32]:
    """uint8 [S, S, 3] -> what the tower sees of it, float32 [3, S, S]."""
    mean, std = (np.asarray(values, np.float32) for values in (rules.mean, rules.std))
    values: NDArray[np.float32] = (square.astype(np.float32) / np.float32(255) - mean) / std
    return values.transpose(2, 0, 1)


def in_patches(shown: Tensor, canvas: PatchCanvas) -> Tensor:
    """Canvases [B, 3, S, S] -> their patches [B, N, 3 P P], a pixel's channels together, N `canvas.most`."""
    tiles, patch = canvas.tiles, canvas.patch
    cut = shown.unflatten(3, (tiles, patch)).unflatten(2, (tiles, patch))  # [B, 3, T, P, T, P]
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)[:, : canvas.most]


def _resize(source: str, processor: Any) -> ExactResize | PatchCanvas:
    filter_: Any = Image.Resampling(processor.resample).name.lower()
    if hasattr(processor, "max_num_patches"):
        return PatchCanvas(processor.patch_size, processor.max_num_patches, filter_)
    size = dict(processor.size)
    size = {edge: value for edge, value in size.items() if value}
    cut = dict(processor.crop_size or {}) if getattr(processor, "do_center_crop", False) else {}
    sides = {size[edge] for edge in ("height", "width") if edge in size}
    keeps = set(size) == {"shortest_edge"}
    side = cut.get("height", next(iter(sides), 0))
    square = cut.get("width", side) == side > 0
    if not processor.do_resize or not square or not (keeps or len(sides) == 1):
        raise CheckpointError(
            f"{source}: its image processor makes no square of a fixed size (size {size}): only such are "
            f"supported"
        )
    return ExactResize(
        side=side,
        first=size["shortest_edge"] if keeps else sides.pop(),
        keeps_proportions=keeps,
        filter=filter_,
    )


def _mean_std(processor: Any, side: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As the files say, or measured where values are not simply scaled to [0, 1] first."""
    plain = getattr(processor, "do_rescale", False) and abs(processor.rescale_factor - 1 / 255) < 1e-9
    extra = getattr(processor, "rescale_offset", False) or getattr(processor, "include_top", False)
    if plain and processor.do_normalize and not extra:
        return tuple(processor.image_mean), tuple(processor.image_std)
    black, white = (
        _processed(processor, Image.new("RGB", (side, side), (value,) * 3)).mean(
            axis=(1, 2), dtype=np.float64
        )
        for value in (0, 255)
    )
    std = 1 / (white - black)
    return tuple((-black * std).tolist()), tuple(std.tolist())


def _check_equal(source: str, processor: Any, rules: PictureRules) -> None:
    """Raise CheckpointError unless ours and theirs make the same of two pictures of noise."""
    noise = np.random.default_rng(0)
    assert not isinstance(rules.resize, str)
    for height, width in ((rules.side + 7, 2 * rules.side - 1), (rules.side // 2 + 3, rules.side // 3 + 1)):
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        square = rules.resize.square(image, rules.side)
        ours, theirs = normalised(square, rules), _processed(processor, image)
        if isinstance(rules.resize, PatchCanvas):
            rows, columns = rules.resize.shapes(square[None, *rules.resize.spare_tile])[0]
            ours = in_patches(torch.from_numpy(ours[None]), rules.resize)[0, : rows * columns].numpy()
            theirs = theirs[: rows * columns]  # and padding
        if theirs.shape != ours.shape or not np.allclose(ours, theirs, rtol=0, atol=TOLERANCE):
            raise CheckpointError(
                f"{source}: its {type(processor).__name__} prepares pictures in a way that is not supported"
            )


def _processed(processor: Any, image: Image.Image) -> NDArray[np.float32]:
    values = torch.as_tensor(np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0]))
    return values.float().numpy()
