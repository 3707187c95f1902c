"""open_clip folders against open_clip itself, both ways, where it is installed; and those of SigLIP's shape
against transformers' SigLIP."""

import copy
import json
import string

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pretrained import (
    OPEN_CLIP_SIGLIP,
    SIGLIP_PREPARED,
    TEXTS,
    clip_tokenizer,
    make_pair,
    open_clip_siglip,
    word_tokenizer,
)
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model import TwoTower
from unicross.model import open_clip_siglip as open_clip_names

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
BICUBIC = Image.Resampling.BICUBIC
LONG = (*TEXTS, "It's 3.5 metres & more!", "a long text " * 40)
UNCLEAN = (
    *LONG,
    "  two_dogs\n(and\ta CAT)...",
    "Tom &amp; Jerry&#39;s &quot;dog&quot; &lt;3",
    "a dog\u2019s \u201cred\u201d square \u2013 na\u00efve, E\u0301COLE \uff01",
    "",
    "!?",
)


def refused(folder, base=CONFIG, **changes):
    config = {"model_cfg": base | changes, "preprocess_cfg": PREPARED}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        TwoTower.load(folder)
    return str(caught.value)


def test_other_kinds_are_refused(tmp_path):
    resnet = CONFIG["vision_cfg"] | {"layers": [3, 4, 6, 3]}
    timm = {"timm_model_name": "convnext_base", "image_size": 224}
    assert "vision_cfg.layers=[3, 4, 6, 3]" in refused(tmp_path, vision_cfg=resnet)
    assert "vision_cfg.timm_model_name" in refused(tmp_path, vision_cfg=timm)
    assert "text_cfg.hf_model_name" in refused(tmp_path, text_cfg={"hf_model_name": "roberta-base"})
    assert "it has no open_clip_model.safetensors" in refused(tmp_path)


def test_what_is_not_quite_a_siglip_is_refused(tmp_path):
    def said(part, **changes):
        return refused(tmp_path, OPEN_CLIP_SIGLIP, **{part: OPEN_CLIP_SIGLIP[part] | changes})

    assert "(vision_cfg.timm_pool='avg')" in said("vision_cfg", timm_pool="avg")
    assert "(vision_cfg.timm_drop_path)" in said("vision_cfg", timm_drop_path=0.1)
    assert "(text_cfg.pool_type='argmax')" in said("text_cfg", pool_type="argmax")
    assert "(text_cfg.hf_tokenizer_name=None)" in said("text_cfg", hf_tokenizer_name=None)
    assert "clean='other')" in said("text_cfg", tokenizer_kwargs={"clean": "other"})
    assert "(text_cfg.tokenizer_kwargs.strip_sep_token)" in said(
        "text_cfg", tokenizer_kwargs={"clean": "lower", "strip_sep_token": True}
    )
    assert "(init_logit_bias=None)" in refused(tmp_path, OPEN_CLIP_SIGLIP, init_logit_bias=None)


def test_weights_that_do_not_fit_are_told(tmp_path):
    folder = make_pair("siglip-open_clip", tmp_path / "pair")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["layers"] = 3
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"do not fit open_clip_config.json: .*text_model.encoder.la"):
        TwoTower.load(folder)
    config["model_cfg"]["text_cfg"]["width"] = 1_000_000
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"asks for hidden_size of 1000000"):
        TwoTower.load(folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    del weights["visual.trunk.attn_pool.kv.weight"]
    save_file(weights, folder / "open_clip_model.safetensors")
    config["model_cfg"] = OPEN_CLIP_SIGLIP
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"no 'visual.trunk.attn_pool.kv.weight'"):
        TwoTower.load(folder)


@torch.no_grad()
def test_a_siglip_folder_is_equal_to_transformers_siglip(tmp_path, pictures):
    """The same weights by open_clip's names and by transformers'; texts cleaned by hand."""
    theirs, tokenizer = open_clip_siglip(), word_tokenizer()
    said = [
        ("A red, square (on the LEFT)!", "a red square on the left"),
        ("two_dogs  &amp; &quot;a\u2019s&quot; \u201cblue\u201d\nblock", "two dogs as blue block"),
        ("something\uff01 E\u0301T\u00c9", "something \u00e9t\u00e9"),
        ("", ""),
        ("yellow " * 40, "yellow " * 40),
    ]
    ids = tokenizer(
        [clean for _, clean in said],
        padding="max_length",
        max_length=20,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
    pixels = torch.stack([as_pixels(Image.open(path).resize((32, 32), BICUBIC)) for path in pictures])
    images = F.normalize(theirs.get_image_features(pixel_values=pixels).pooler_output)
    texts = F.normalize(theirs.get_text_features(input_ids=ids).pooler_output)
    model = TwoTower.load(make_pair("siglip-open_clip", tmp_path / "pair"))
    found = model.encode_images(pictures), model.encode_texts([text for text, _ in said])
    np.testing.assert_allclose(found[0], images.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], texts.numpy(), rtol=0, atol=1e-5)
    assert model.scale.item() == pytest.approx(theirs.logit_scale.exp().item())
    assert model.bias.item() == pytest.approx(-12.9)
    assert model.objective == "sigmoid"
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = TwoTower.load(tmp_path / "saved").encode_texts([text for text, _ in said])
    assert (again == found[1]).all()


def as_pixels(image):
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng, paths = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number, size in enumerate([(61, 43), (40, 91), (200, 151), (20, 25)]):
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size).save(paths[-1])
    return paths


def compared(theirs, source, out, config, texts, pictures):
    """Hold a folder made of an open_clip model against the model, and what is exported of it too."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    source.mkdir(exist_ok=True)
    (source / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    save_file(weights, source / "open_clip_model.safetensors")

    def embedded(model, transform, tokenizer):
        shown = torch.stack([transform(Image.open(path)) for path in pictures])
        return (
            model.encode_image(shown, normalize=True).numpy(),
            model.encode_text(tokenizer(list(texts)), normalize=True).numpy(),
        )

    transform = image_transform_v2(PreprocessCfg(**config["preprocess_cfg"]), is_train=False)
    own = f"local-dir:{source}" if "hf_tokenizer_name" in config["model_cfg"]["text_cfg"] else "ViT-B-32"
    of_images, of_texts = embedded(theirs, transform, open_clip.get_tokenizer(own))
    model = TwoTower.load(source)
    np.testing.assert_allclose(model.encode_images(pictures), of_images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(texts), of_texts, rtol=0, atol=1e-5)
    assert model.scale.item() == pytest.approx(theirs.logit_scale.exp().item())
    assert (model.bias is None) == (theirs.logit_bias is None)
    if model.bias is not None:
        assert model.bias.item() == pytest.approx(theirs.logit_bias.item())
    export(model, source, out, "open_clip")
    loaded, transform = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    again = embedded(loaded.eval(), transform, open_clip.get_tokenizer(f"local-dir:{out}"))
    np.testing.assert_allclose(again[0], of_images, rtol=0, atol=1e-4)
    np.testing.assert_allclose(again[1], of_texts, rtol=0, atol=1e-4)
    assert loaded.logit_scale.item() == pytest.approx(theirs.logit_scale.item(), rel=1e-5)
    if model.bias is not None:
        assert loaded.logit_bias.item() == pytest.approx(theirs.logit_bias.item())


@torch.no_grad()
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_a_folder_is_equal_to_open_clip_both_ways(mode, tmp_path, pictures):
    pytest.importorskip("open_clip", exc_type=ImportError)
    from open_clip.model import CLIP

    torch.manual_seed(0)
    theirs = CLIP(**CONFIG).eval()
    for parameter in theirs.parameters():
        parameter.mul_(3 if parameter.ndim >= 2 else 1)
    config = {"model_cfg": CONFIG, "preprocess_cfg": PREPARED | {"resize_mode": mode}}
    (tmp_path / "in").mkdir()
    clip_tokenizer().save_pretrained(tmp_path / "in")
    compared(theirs, tmp_path / "in", tmp_path / "out", config, LONG, pictures)


def t5_tokenizer():
    """Of T5's class with its sentinels, for which SigLIP has no rows; it pads with its end token."""
    from transformers import T5Tokenizer

    words = dict.fromkeys(word for text in LONG for word in text.lower().split())
    pieces = [*string.printable.strip(), *(f"\u2581{word}" for word in words)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    vocabulary += [(piece, -3.0 - number / 50) for number, piece in enumerate(dict.fromkeys(pieces))]
    return T5Tokenizer(vocab=vocabulary, pad_token="</s>"), len(vocabulary)


def gemma_tokenizer():
    """Of Gemma's class: it takes unknown letters by their bytes and would pad on the left by itself."""
    from transformers import GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["\u2581", *string.printable.strip(), "do", "dog", "squ", "are"]
    merges = [("d", "o"), ("do", "g")]
    vocabulary = {word: number for number, word in enumerate(words)}
    more = {"padding_side": "right", "add_bos_token": False, "add_eos_token": True}
    return GemmaTokenizer(vocab=vocabulary, merges=merges, **more), len(words)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "make_tokenizer", "approximate"),
    [
        ("vit_base_patch16_siglip_224", t5_tokenizer, None),
        ("vit_base_patch32_siglip_256", gemma_tokenizer, "tanh"),
    ],
)
def test_a_siglip_folder_is_equal_to_open_clip_both_ways(
    name, make_tokenizer, approximate, tmp_path, pictures, monkeypatch
):
    """timm's own ViT of that name, but for fewer layers of less width."""
    pytest.importorskip("open_clip", exc_type=ImportError)
    from open_clip.model import CustomTextCLIP
    from timm.models import _registry

    original = _registry._model_entrypoints[name]
    monkeypatch.setitem(
        _registry._model_entrypoints, name, lambda **more: original(**more, embed_dim=48, depth=2)
    )
    monkeypatch.setitem(open_clip_names.SIZES, "base", (48, 2, 12, 192))
    tokenizer, rows = make_tokenizer()
    (tmp_path / "in").mkdir()
    tokenizer.save_pretrained(tmp_path / "in")
    side = int(name[-3:])
    text = OPEN_CLIP_SIGLIP["text_cfg"] | {"vocab_size": rows, "mlp_ratio": 3.7362}
    text |= {} if approximate is None else {"act_kwargs": {"approximate": approximate}}
    vision = OPEN_CLIP_SIGLIP["vision_cfg"] | {"timm_model_name": name, "image_size": side}
    model_cfg = OPEN_CLIP_SIGLIP | {"vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    built = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    theirs = CustomTextCLIP(**copy.deepcopy(built)).eval()
    for parameter in theirs.parameters():
        if parameter.ndim:
            parameter.mul_(3).add_(torch.randn_like(parameter), alpha=0.1)
    theirs.logit_scale.fill_(4.77)
    config = {"model_cfg": model_cfg, "preprocess_cfg": SIGLIP_PREPARED | {"size": side}}
    compared(theirs, tmp_path / "in", tmp_path / "out", config, UNCLEAN, pictures)


def test_the_table_of_vits_is_timms():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    activations = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}
    for name, activation in open_clip_names.VITS.items():
        with torch.device("meta"):
            vit = timm.create_model(name, num_classes=0, global_pool="map")
        size, mlp = name.split("_")[1], vit.blocks[0].mlp
        sizes = vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads, mlp.fc1.out_features
        assert sizes == open_clip_names.SIZES[size], name
        assert {activations[type(layer.act).__name__] for layer in (mlp, vit.attn_pool.mlp)} == {activation}
        assert vit.attn_pool.num_heads == sizes[2]
        assert (vit.norm.eps, vit.attn_pool.norm.eps) == (open_clip_names.EPS,) * 2
        assert vit.patch_embed.img_size[0] == int(name.rsplit("_", 1)[-1])
