"""open_clip's side of train_throughput.py, run with the Python of an environment of its own.

It needs torch and `pip install --no-deps open_clip_torch timm torchvision`, ftfy, regex and transformers, but
not unicross. Prints pairs a second as JSON. Its towers, tokenizer, transforms, loss and loader; the loop is
plain: forward, loss, backward, AdamW.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext

import torch

if torch.version.cuda is None:  # torchvision from PyPI lacks these beside a CPU build; import asks for them
    _torchvision = torch.library.Library("torchvision", "DEF")
    for _signature in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        _torchvision.define(_signature)

import open_clip
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Pairs(Dataset):  # type: ignore[type-arg]
    """Pictures through open_clip's training transform, captions through its tokenizer, one at a time."""

    def __init__(self, pairs, transform, tokenizer):  # type: ignore[no-untyped-def]
        self.pairs, self.transform, self.tokenizer = pairs, transform, tokenizer

    def __len__(self):  # type: ignore[no-untyped-def]
        return len(self.pairs)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        path, caption = self.pairs[number]
        return self.transform(Image.open(path).convert("RGB")), self.tokenizer([caption])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", help="JSON file with a list of [image path, caption]")
    parser.add_argument("text", help="folder or hub name of the text tower")
    parser.add_argument("--vision", default="deit_tiny_patch16_224", help="its name in timm")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--tokens", type=int, default=77)
    parser.add_argument("--compile", action="store_true", help="as its --torchcompile does")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    model = open_clip.CustomTextCLIP(
        embed_dim=256,
        vision_cfg={
            "timm_model_name": arguments.vision,
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
            "image_size": arguments.size,
        },
        text_cfg={
            "hf_model_name": arguments.text,
            "hf_tokenizer_name": arguments.text,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
            "context_length": arguments.tokens,
        },
    )
    model.visual.trunk.set_input_size(img_size=arguments.size)  # timm's; open_clip leaves it at 224
    for module in model.text.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as on the other sides
    model.to(device).train()
    transform = open_clip.image_transform(arguments.size, is_train=True)
    tokenizer = open_clip.tokenizer.HFTokenizer(arguments.text, context_length=arguments.tokens)
    with open(arguments.pairs, encoding="utf-8") as file:
        pairs = json.load(file)
    loader = DataLoader(
        Pairs(pairs, transform, tokenizer),
        batch_size=arguments.batch,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
        pin_memory=device.type == "cuda",
    )
    loss_of = open_clip.ClipLoss()
    seen = torch.compile(model) if arguments.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    bf16 = arguments.precision == "bf16"
    warm, done, began = 3, 0, 0.0
    while done < warm + arguments.steps:
        for images, texts in loader:
            if done == warm:
                _wait(device)
                began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                out = seen(images.to(device, non_blocking=True), texts.to(device, non_blocking=True))
                loss = loss_of(*out[:3]) if isinstance(out, tuple) else loss_of(**out)
            loss.backward()
            optimizer.step()
            done += 1
            if done == warm + arguments.steps:
                break
    _wait(device)
    seconds = time.perf_counter() - began
    print(json.dumps({"pairs_per_second": arguments.steps * arguments.batch / seconds}))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
