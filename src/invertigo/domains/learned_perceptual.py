"""LPIPS, where its package and its trained weights are already on this machine. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_BACKBONE = "alexnet-owt-*.pth"
_SHORTEST_SIDE = 64


def available() -> bool:
    """Whether `lpips`, `torchvision` and the weights of AlexNet can be loaded without the network."""
    if find_spec("lpips") is None or find_spec("torchvision") is None:
        return False
    return any((Path(torch.hub.get_dir()) / "checkpoints").glob(_BACKBONE))


def lpips_distance(
    truth: Float[Tensor, "batch channel height width"], guess: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, " batch"]:
    """Learned perceptual distance of each image (AlexNet), 0 for the same picture; pixels in [0, 1].

    Images are shown as `render` draws them (grey repeated to three channels) and enlarged to 64 pixels where they
    are smaller, since AlexNet cannot read less.

    Source: Zhang, Isola, Efros, Shechtman and Wang, "The unreasonable effectiveness of deep features as a perceptual
    metric", CVPR 2018.
    """
    with torch.no_grad():
        distance = _network()(*(_as_network_reads(images) for images in (truth, guess)))
    return distance.flatten().to(truth.dtype)


@lru_cache(maxsize=1)
def _network() -> Callable[[Tensor, Tensor], Tensor]:
    return import_module("lpips").LPIPS(net="alex", verbose=False).eval()


def _as_network_reads(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 3 h w"]:
    rgb = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    shorter = min(rgb.shape[-2:])
    if shorter < _SHORTEST_SIDE:
        rgb = functional.interpolate(rgb, scale_factor=_SHORTEST_SIDE / shorter, mode="bilinear", antialias=False)
    return 2 * rgb.float() - 1
