"""Views: decided by the generator alone, cut into rows at will, and true to what was drawn."""

import dataclasses

import numpy as np
import pytest
import torch

from unicross.data.views import apply_views, draw_views
from unicross.stage import ImageView

EVERYTHING = ImageView(crop=(0.3, 1.0), flip=0.5, jitter=0.6, grey=0.4, blur=0.5)
PLAIN = ImageView(crop=(1.0, 1.0), flip=0.0)


def pictures(count=6, side=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def draw(config, count=6, seed=0):
    return draw_views(config, count, np.random.default_rng(seed))


def as_floats(pixels):
    return pixels.permute(0, 3, 1, 2).float() / 255


def plain_draw(**changes):
    return dataclasses.replace(draw(PLAIN), **changes)


def test_equal_generators_give_equal_views_and_others_do_not():
    first, again, other = (apply_views(pictures(), draw(EVERYTHING, seed=s), 16) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("rows", [slice(0, 6), slice(0, 2), slice(2, 5), slice(5, 6), slice(4, 100)])
def test_rows_of_a_draw_show_the_rows_of_the_batch(rows):
    """A micro-batch sees exactly the views that the whole batch would."""
    whole = apply_views(pictures(), draw(EVERYTHING), 16)
    part = apply_views(pictures()[rows], draw(EVERYTHING).rows(rows), 16)
    torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6)


def test_the_whole_picture_stays_as_it_is():
    pixels = pictures(side=16)
    torch.testing.assert_close(apply_views(pixels, draw(PLAIN), 16), as_floats(pixels), atol=1e-5, rtol=0)


def test_a_flip_is_a_mirror():
    pixels = pictures(side=16)
    view = apply_views(pixels, draw(ImageView(crop=(1.0, 1.0), flip=1.0)), 16)
    torch.testing.assert_close(view, as_floats(pixels).flip(-1), atol=1e-5, rtol=0)


def test_a_quarter_crop_shows_that_quarter():
    """Width and height 1/2, centred at (-1/2, -1/2): the upper left quarter, pixel by pixel."""
    pixels = pictures(side=16)
    boxes = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]).expand(6, 2, 3)
    view = apply_views(pixels, plain_draw(boxes=boxes), 8)
    torch.testing.assert_close(view, as_floats(pixels)[:, :, :8, :8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("low", [0.1, 0.5])
def test_crops_stay_inside_and_keep_their_share(low):
    boxes = draw(ImageView(crop=(low, 0.8), flip=0.5), count=500).boxes.abs()
    width, height = boxes[:, 0, 0], boxes[:, 1, 1]
    assert (width + boxes[:, 0, 2]).max() <= 1 + 1e-6
    assert (height + boxes[:, 1, 2]).max() <= 1 + 1e-6
    area = width * height
    assert low - 1e-6 < area.min() < low + 0.05
    assert 0.75 < area.max() < 0.8 + 1e-6
    assert area.mean().item() == pytest.approx((low + 0.8) / 2, abs=0.03)
    assert 1.2 < (width / height).max() < 4 / 3 + 1e-5


def test_probabilities_decide_how_many_rows_change():
    drawn = draw(ImageView(flip=0.25, jitter=0.8, grey=0.2, blur=0.5), count=2000)
    shares = [len(rows) / 2000 for rows in (drawn.jittered, drawn.grey, drawn.blurred)]
    assert shares == pytest.approx([0.8, 0.2, 0.5], abs=0.04)
    assert (drawn.boxes[:, 0, 0] < 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
    never = draw(PLAIN, count=100)
    assert [len(rows) for rows in (never.jittered, never.grey, never.blurred)] == [0, 0, 0]


def test_grey_rows_are_grey_and_only_they():
    view = apply_views(pictures(), plain_draw(grey=torch.tensor([1, 4])), 16)
    spread = (view.amax(1) - view.amin(1)).amax((1, 2))
    assert (spread[[1, 4]] < 1e-6).all()
    assert (spread[[0, 2, 3, 5]] > 0.1).all()


def test_blurred_rows_are_smoother_and_only_they():
    changes = {"blurred": torch.tensor([2, 3]), "sigma": torch.tensor([20.0, 20.0])}
    sharp, soft = apply_views(pictures(), draw(PLAIN), 16), apply_views(pictures(), plain_draw(**changes), 16)
    assert (soft[[2, 3]].std((2, 3)) < 0.8 * sharp[[2, 3]].std((2, 3))).all()
    torch.testing.assert_close(soft[[2, 3]].mean((2, 3)), sharp[[2, 3]].mean((2, 3)), atol=0.05, rtol=0)
    assert torch.equal(soft[[0, 1, 4, 5]], sharp[[0, 1, 4, 5]])


def test_jitter_changes_colours_of_its_rows_by_what_was_drawn():
    same = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    view = apply_views(pictures(), plain_draw(jittered=torch.tensor([3]), colour=same), 16)
    plain = apply_views(pictures(), draw(PLAIN), 16)
    torch.testing.assert_close(view, plain, atol=1e-4, rtol=0)  # factors of 1 and no turn of the hue
    darker = torch.tensor([[0.6, 1.0, 1.0, 0.0]])
    view = apply_views(pictures(), plain_draw(jittered=torch.tensor([3]), colour=darker), 16)
    torch.testing.assert_close(view[3], plain[3] * 0.6, atol=1e-3, rtol=0)
    assert torch.equal(view[[0, 1, 2, 4, 5]], plain[[0, 1, 2, 4, 5]])


def test_values_stay_in_range():
    view = apply_views(pictures(40), draw(EVERYTHING, count=40), 16)
    assert view.dtype == torch.float32
    assert view.shape == (40, 3, 16, 16)
    assert view.min() >= 0
    assert view.max() <= 1
