"""Random views of pictures, made in batches on the device.

Random numbers are drawn first, for the whole batch, from a generator that is passed in; applying them is
then a pure function. So a batch may be cut into micro-batches, or repeated, without a view changing.
Order and strengths follow SLIP (Mu et al. 2022): crop, colour jitter, greyscale, blur, flip.

Letters: B batch, S side of the stored picture, V side of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import kornia.enhance as enhance
import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional as F

from unicross.device import send
from unicross.stage import ImageView

JITTER = 0.4
"""Brightness, contrast and saturation are scaled by up to 1 +- JITTER."""
HUE_TURNS = 0.1
"""Hue moves by up to this share of a full turn."""
ASPECT = 4 / 3
"""Crops are up to this much wider than high, or higher than wide."""
SIGMA = (0.1, 2.0)
"""Blur in pixels of a view of 224; scaled with its side."""


@dataclass(frozen=True, slots=True)
class ViewDraw:
    """The random numbers of B views."""

    boxes: Tensor  # [B, 2, 3] affine maps from view to stored picture, coordinates in [-1, 1]
    jittered: Tensor  # [J] rows with colour jitter
    colour: Tensor  # [J, 4] factors of brightness, contrast, saturation; hue in radians
    grey: Tensor  # [G] rows made grey
    blurred: Tensor  # [U] rows blurred
    sigma: Tensor  # [U], always on the host: kornia looks at its values
    size: float = 1.0  # side of the view as a share of the model's
    patch_dropout: float = 0.0  # share of the patches that the tower does not see

    def to(self, device: torch.device) -> ViewDraw:
        """The draws on a device, without waiting for it."""
        return replace(
            self,
            boxes=send(self.boxes, device),
            jittered=send(self.jittered, device),
            colour=send(self.colour, device),
            grey=send(self.grey, device),
            blurred=send(self.blurred, device),
        )

    def rows(self, rows: slice) -> ViewDraw:
        """The draws of some of the views only."""
        start, stop, _ = rows.indices(len(self.boxes))

        def within(selected: Tensor) -> Tensor:
            return (selected >= start) & (selected < stop)

        jittered, grey, blurred = within(self.jittered), within(self.grey), within(self.blurred)
        return ViewDraw(
            self.boxes[rows],
            self.jittered[jittered] - start,
            self.colour[jittered],
            self.grey[grey] - start,
            self.blurred[blurred] - start,
            self.sigma[blurred],
            self.size,
            self.patch_dropout,
        )


def draw_views(config: ImageView, count: int, rng: np.random.Generator) -> ViewDraw:
    """Draw the random numbers of `count` views."""
    area = rng.uniform(*config.crop, count)
    fitting = np.minimum(math.log(ASPECT), -np.log(area))  # a large crop has little room to be wide
    aspect = np.exp(rng.uniform(-1, 1, count) * fitting)
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    x, y = rng.uniform(-1, 1, count) * (1 - width), rng.uniform(-1, 1, count) * (1 - height)
    mirror = np.where(rng.random(count) < config.flip, -1.0, 1.0)
    boxes = np.zeros((count, 2, 3), np.float32)
    boxes[:, 0, 0], boxes[:, 0, 2] = width * mirror, x
    boxes[:, 1, 1], boxes[:, 1, 2] = height, y
    jittered = np.flatnonzero(rng.random(count) < config.jitter)
    colour = rng.uniform(-1, 1, (len(jittered), 4)) * [JITTER, JITTER, JITTER, HUE_TURNS * 2 * math.pi]
    colour[:, :3] += 1
    grey = np.flatnonzero(rng.random(count) < config.grey)
    blurred = np.flatnonzero(rng.random(count) < config.blur)
    sigma = rng.uniform(*SIGMA, len(blurred))
    return ViewDraw(
        torch.from_numpy(boxes),
        torch.from_numpy(jittered),
        torch.from_numpy(colour.astype(np.float32)),
        torch.from_numpy(grey),
        torch.from_numpy(blurred),
        torch.from_numpy(sigma.astype(np.float32)),
        config.size,
        config.patch_dropout,
    )


def apply_views(pixels: Tensor, draw: ViewDraw, side: int) -> Tensor:
    """Show pictures through drawn views.

    Args:
        pixels: [B, S, S, 3] uint8.
        draw: for B views, moved to the device of `pixels`.
        side: V, of the views in pixels.

    Returns:
        [B, 3, V, V] float32 in [0, 1].
    """
    picture = pixels.permute(0, 3, 1, 2).float() / 255  # [B, 3, S, S]
    grid = F.affine_grid(draw.boxes, [len(picture), 3, side, side], align_corners=False)  # [B, V, V, 2]
    view = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    if len(draw.jittered):
        view[draw.jittered] = _jitter(view[draw.jittered], draw.colour)
    if len(draw.grey):
        view[draw.grey] = rgb_to_grayscale(view[draw.grey]).expand(-1, 3, -1, -1)
    if len(draw.blurred):
        sigma = (draw.sigma * side / 224)[:, None].expand(-1, 2)  # [U, 2]
        kernel = 2 * round(0.05 * side) + 1
        view[draw.blurred] = gaussian_blur2d(view[draw.blurred], (kernel, kernel), sigma)
    return view


def _jitter(view: Tensor, colour: Tensor) -> Tensor:
    view = enhance.adjust_brightness_accumulative(view, colour[:, 0])
    view = enhance.adjust_contrast_with_mean_subtraction(view, colour[:, 1])
    view = enhance.adjust_saturation_with_gray_subtraction(view, colour[:, 2])
    return enhance.adjust_hue(view, colour[:, 3])
