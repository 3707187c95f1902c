"""A plugin of pytest for `make open-clip`: operators that torchvision from PyPI asks for when it is imported,
and that a CPU build of torch has not."""

import torch

if torch.version.cuda is None:
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for _op in ("nms(Tensor dets, Tensor scores", "qnms(Tensor dets, Tensor scores"):
        LIBRARY.define(f"{_op}, float iou_threshold) -> Tensor")
