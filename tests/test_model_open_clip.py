"""open_clip folders against open_clip itself, both ways; only where it is installed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pretrained import TEXTS, clip_tokenizer
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model import TwoTower

CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPARED = {
    "size": 32,
    "mode": "RGB",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
LONG = (*TEXTS, "It's 3.5 metres & more!", "a long text " * 40)


def refused(folder, **changes):
    config = {"model_cfg": CONFIG | changes, "preprocess_cfg": PREPARED}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        TwoTower.load(folder)
    return str(caught.value)


def test_other_kinds_are_refused(tmp_path):
    resnet = CONFIG["vision_cfg"] | {"layers": [3, 4, 6, 3]}
    timm = {"timm_model_name": "vit_base_patch16_siglip_224", "image_size": 224}
    assert "vision_cfg.layers=[3, 4, 6, 3]" in refused(tmp_path, vision_cfg=resnet)
    assert "vision_cfg.timm_model_name" in refused(tmp_path, vision_cfg=timm)
    assert "text_cfg.hf_model_name" in refused(tmp_path, text_cfg={"hf_model_name": "roberta-base"})
    assert "it has no open_clip_model.safetensors" in refused(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_a_folder_is_equal_to_open_clip_both_ways(mode, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip", exc_type=ImportError)
    from open_clip.model import CLIP
    from open_clip.transform import PreprocessCfg, image_transform_v2

    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    torch.manual_seed(0)
    theirs = CLIP(**CONFIG).eval()
    for parameter in theirs.parameters():
        parameter.mul_(3 if parameter.ndim >= 2 else 1)
    prepared = PREPARED | {"resize_mode": mode}
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    config = {"model_cfg": CONFIG, "preprocess_cfg": prepared}
    (source / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    save_file(weights, source / "open_clip_model.safetensors")
    clip_tokenizer().save_pretrained(source)
    rng, paths = np.random.default_rng(0), []
    for number, size in enumerate([(61, 43), (40, 91), (200, 151), (20, 25)]):
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size).save(paths[-1])

    def embedded(model, transform, tokenizer):
        shown = torch.stack([transform(Image.open(path)) for path in paths])
        images, texts = (
            model.encode_image(shown, normalize=True),
            model.encode_text(tokenizer(list(LONG)), normalize=True),
        )
        return images.numpy(), texts.numpy()

    transform = image_transform_v2(PreprocessCfg(**prepared), is_train=False)
    images, texts = embedded(theirs, transform, open_clip.SimpleTokenizer())
    model = TwoTower.load(source)
    np.testing.assert_allclose(model.encode_images(paths), images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(LONG), texts, rtol=0, atol=1e-5)
    assert model.scale.item() == pytest.approx(theirs.logit_scale.exp().item())
    export(model, source, out, "open_clip")
    loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    again = embedded(loaded.eval(), transform, open_clip.get_tokenizer(f"local-dir:{out}"))
    np.testing.assert_allclose(again[0], images, rtol=0, atol=1e-4)
    np.testing.assert_allclose(again[1], texts, rtol=0, atol=1e-4)
