"""The correction of hubs, within the vectors themselves."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import tiny
from unicross import TwoTower
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model.hubness import LARGEST, STEEPNESS, HubnessCorrection

LONGER = 1 + 2 * LARGEST


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def hubs():
    ids = torch.arange(40)
    return HubnessCorrection.fitted(unit(40, 8, seed=1), unit(40, 8, seed=2), ids, ids)


def nearness(vectors, sample):
    return ((STEEPNESS * vectors @ sample.half().float().T).exp().mean(dim=1)).log() / STEEPNESS


def test_cosines_lose_what_each_side_is_near_to_on_average(hubs):
    images, texts = unit(5, 8, seed=3), unit(7, 8, seed=4)
    p, q = nearness(images, hubs.texts), nearness(texts, hubs.images)
    p, q = ((n - c).clamp(-LARGEST, LARGEST) for n, c in ((p, hubs.centres[0]), (q, hubs.centres[1])))
    assert p.std() > 0.01  # there is something to take off
    wanted = (images @ texts.T - p[:, None] - q[None, :]) / LONGER
    torch.testing.assert_close(hubs.of_images(images) @ hubs.of_texts(texts).T, wanted, atol=1e-5, rtol=0)


def test_corrected_vectors_have_length_one_and_keep_each_other(hubs):
    for corrected in (hubs.of_images, hubs.of_texts):
        vectors = corrected(unit(9, 8, seed=5))
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(9))
        off = (vectors @ vectors.T * LONGER - 2 * LARGEST) - unit(9, 8, seed=5) @ unit(9, 8, seed=5).T
        assert off.abs().max() <= 2 * LARGEST
        assert off.diagonal().abs().max() < 1e-5  # what is equal stays equal


def test_a_hub_no_longer_comes_first_for_everything():
    """Texts lie around one direction; the picture in it is nearest to all, though each has its own."""
    middle, own = F.one_hot(torch.tensor(0), 12).float(), torch.eye(12)[1:9]
    texts = F.normalize(middle + 0.7 * own, dim=-1)
    images = torch.cat([middle[None], F.normalize(0.3 * middle + own, dim=-1)])  # the hub, and their own
    assert (images @ texts.T).argmax(dim=0).tolist() == [0] * 8
    sample = F.normalize(middle + 0.7 * torch.eye(12)[9:], dim=-1)
    hubs = HubnessCorrection.fitted(images, sample, torch.arange(9), torch.arange(3) + 100)
    corrected = hubs.of_images(images) @ hubs.of_texts(texts).T
    assert corrected.argmax(dim=0).tolist() == list(range(1, 9))


def test_an_items_own_texts_do_not_move_the_centre():
    """New pictures have no text of their own among the sample, and the centre is theirs."""
    images, ids = unit(30, 8, seed=6), torch.arange(30)
    shared = HubnessCorrection.fitted(images, images, ids, ids)  # each one's own text is the picture itself
    apart = HubnessCorrection.fitted(images, images, ids, ids + 100)
    assert shared.centres[0] < apart.centres[0] - 0.05


def test_a_sample_of_a_single_item_makes_finite_vectors():
    one = torch.zeros(1, dtype=torch.int64)
    alone = HubnessCorrection.fitted(unit(1, 8, seed=9), unit(1, 8, seed=9), one, one)
    assert alone.of_images(unit(3, 8)).isfinite().all()


def corrected_model():
    model = tiny.model(["a red square", "a blue block"])
    ids = torch.arange(6)
    model.hubness = HubnessCorrection.fitted(unit(6, model.dim, seed=7), unit(6, model.dim, seed=8), ids, ids)
    return model


def test_a_checkpoint_keeps_the_correction_and_training_leaves_it_out(tmp_path):
    model = corrected_model()
    assert model.dim == 20
    model.save(tmp_path)
    loaded = TwoTower.load(tmp_path)
    assert loaded.dim == 20
    assert (loaded.encode_texts(["a red block"]) == model.encode_texts(["a red block"])).all()
    begun, with_it = TwoTower.load(tmp_path, config=model.config), model.fingerprint()
    model.hubness = None
    assert begun.dim == model.dim == 16
    assert (begun.encode_texts(["a red block"]) == model.encode_texts(["a red block"])).all()
    assert begun.fingerprint() == model.fingerprint() != with_it


def test_a_checkpoint_with_the_correction_of_another_model_is_refused(tmp_path):
    model = corrected_model()
    model.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["hubness.texts"] = weights["hubness.texts"][:, :7].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="its correction of hubness is not of vectors with 16 numbers"):
        TwoTower.load(tmp_path)


@pytest.mark.parametrize("target", ["hf", "sentence-transformers", "open_clip"])
def test_formats_that_cannot_hold_it_refuse(target, tmp_path):
    with pytest.raises(CheckpointError, match=r"corrects its hubs, .* --to onnx, or train it with train\.c"):
        export(corrected_model(), tmp_path, tmp_path / "out", target)


def test_onnx_holds_it(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export(corrected_model(), tmp_path, tmp_path / "out", "onnx")  # compares the graphs with the model
    graph = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "text_model.onnx")
    assert graph.get_outputs()[0].shape[-1] == 20
