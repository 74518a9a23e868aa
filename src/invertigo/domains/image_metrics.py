"""How far one picture is from another: MSE, PSNR and SSIM, each image on its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

HIGHEST_PSNR = 160.0
"""Cap in dB (an error of 1e-8 of the range): equal pictures get a finite score, and rounding is not ranked."""

_WINDOW, _SIGMA = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2

Images = Float[Tensor, "batch channel height width"]
Scores = Float[Tensor, " batch"]


def mse(truth: Images, guess: Images) -> Scores:
    """Mean squared error of each image, mean over channels and pixels; pixels in [0, 1] give [0, 1]."""
    return (truth - guess).square().flatten(1).mean(1)


def psnr(truth: Images, guess: Images) -> Scores:
    """Peak signal-to-noise ratio of each image, `-10 log10 MSE` dB for pixels in [0, 1], at most 160 dB."""
    return -10 * mse(truth, guess).clamp_min(10 ** (-HIGHEST_PSNR / 10)).log10()


def ssim(truth: Images, guess: Images) -> Scores:
    """Structural similarity of each image, in [-1, 1]; pixels in [0, 1].

    The mean, over channels and over all positions where the window fits, of

        (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)),   C1 = 0.01², C2 = 0.03²,

    with local moments under an 11×11 Gaussian window of σ = 1.5 (population covariance). Where the shorter side
    is below 11 pixels, the window is the largest odd size that fits and σ shrinks in proportion.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Transactions on Image Processing 13(4), 2004, section III.
    """
    window = _gaussian_window(truth)
    mean_x, mean_y = _blur(truth, window), _blur(guess, window)
    var_x = _blur(truth.square(), window) - mean_x.square()
    var_y = _blur(guess.square(), window) - mean_y.square()
    covariance = _blur(truth * guess, window) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _LUMINANCE) / (mean_x.square() + mean_y.square() + _LUMINANCE)
    structure = (2 * covariance + _CONTRAST) / (var_x + var_y + _CONTRAST)
    return (luminance * structure).flatten(1).mean(1)


def window_size(height: int, width: int, largest: int) -> int:
    """The largest odd window, up to `largest`, that fits into an image."""
    size = min(largest, height, width)
    return size if size % 2 else size - 1


def _gaussian_window(like: Images) -> Float[Tensor, " window"]:
    size = window_size(like.shape[-2], like.shape[-1], _WINDOW)
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    weights = torch.exp(-0.5 * (offsets / (_SIGMA * size / _WINDOW)).square())
    return weights / weights.sum()


def _blur(images: Images, window: Float[Tensor, " window"]) -> Float[Tensor, "batch channel h w"]:
    planes = images.flatten(0, 1).unsqueeze(1)  # (batch * channel, 1, height, width)
    rows = functional.conv2d(planes, window.view(1, 1, -1, 1))
    return functional.conv2d(rows, window.view(1, 1, 1, -1)).unflatten(0, images.shape[:2]).squeeze(2)
