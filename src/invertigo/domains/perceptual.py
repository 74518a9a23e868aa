"""A perceptual distance that needs no trained weights: complex-wavelet structural similarity."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from invertigo.domains.image_metrics import window_size
from invertigo.domains.registration import registered

_WAVELENGTHS = (4.0, 8.0, 16.0)
_ORIENTATIONS = 6
_BANDWIDTH = 0.55
_WINDOW = 7
_STABILISER = 0.03**2
_LONGEST_SIDE = 64
_STRONGEST_GAIN = 5.0


def perceptual_distance(
    truth: Float[Tensor, "batch channel height width"], guess: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, " batch"]:
    """How different two pictures look, 0 (the same) to 1 (no local structure in common); pixels in [0, 1].

    One minus the complex-wavelet structural similarity: with c and d the responses of truth and guess to one
    oriented complex filter, and sums over a 7×7 window,

        1 - mean over bands and positions of  (2 |Σ c d*| + K) / (Σ |c|² + Σ |d|² + K).

    The guess is first shown at its best: moved by the small shift that fits best (up to an eighth of the side, around
    the edge) and brought to the contrast of the truth (by a factor of five at most), as a viewer would. Brightness
    does not enter, since the filters have no response to it, and what shift remains turns the phase of c and d alike.
    Channels are averaged to one plane, so an error in hue alone goes unseen.

    Source: Sampat, Wang, Gupta, Bovik and Markey, "Complex wavelet structural similarity: a new image similarity
    index", IEEE Transactions on Image Processing 18(11), 2009, equation 7. We deviate in the filters: undecimated
    log-Gabor bands of wavelength 4, 8 and 16 pixels (those that fit the image) in six orientations, instead of a
    steerable pyramid, which small images are too small for; and in the mean over a window with K = 0.03², the
    contrast constant of SSIM.
    """
    planes = _plane(truth), _plane(guess)
    seen = registered(planes[0], planes[1]) * _contrast_gain(*planes)
    spectra = [torch.fft.fft2(_mirrored(plane).squeeze(1)) for plane in (planes[0], seen)]
    height, width = (side // 2 for side in spectra[0].shape[-2:])
    window = window_size(height, width, _WINDOW)
    similarities = []
    for band in _bands(spectra[0], min(height, width)):
        c, d = (torch.fft.ifft2(s * band)[..., :height, :width] for s in spectra)
        similarities.append(_local_similarity(c, d, window))
    return (1 - torch.stack(similarities).mean(0)).clamp(0, 1)


def _plane(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1 h w"]:
    plane = images.mean(1, keepdim=True)
    factor = max(1, round(min(plane.shape[-2:]) / _LONGEST_SIDE))
    return functional.avg_pool2d(plane, factor)


def _contrast_gain(
    truth: Float[Tensor, "batch 1 h w"], guess: Float[Tensor, "batch 1 h w"]
) -> Float[Tensor, "batch 1 1 1"]:
    spread_t, spread_g = (plane.flatten(1).std(1, correction=0).clamp_min(1e-6) for plane in (truth, guess))
    return (spread_t / spread_g).clamp(1 / _STRONGEST_GAIN, _STRONGEST_GAIN)[:, None, None, None]


def _mirrored(plane: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 h2 w2"]:
    """The even extension: a Fourier filter then sees no jump at the border."""
    tall = torch.cat([plane, plane.flip(-2)], dim=-2)
    return torch.cat([tall, tall.flip(-1)], dim=-1)


def _bands(like: Complex[Tensor, "batch h2 w2"], shorter_side: int) -> Iterator[Float[Tensor, "h2 w2"]]:
    """One-sided log-Gabor transfer functions, so that the responses are analytic: modulus and phase."""
    real, device = like.real.dtype, like.device
    rows, columns = (torch.fft.fftfreq(n, dtype=real, device=device) for n in like.shape[-2:])
    radius = torch.hypot(rows[:, None], columns[None, :])
    radius[0, 0] = 1  # its logarithm is discarded below
    angle = torch.atan2(rows[:, None].expand_as(radius), columns[None, :].expand_as(radius))
    for wavelength in [w for w in _WAVELENGTHS if w <= shorter_side] or _WAVELENGTHS[:1]:
        radial = torch.exp(-(radius * wavelength).log().square() / (2 * math.log(_BANDWIDTH) ** 2))
        radial[0, 0] = 0
        for k in range(_ORIENTATIONS):
            lobe = torch.cos(angle - math.pi * k / _ORIENTATIONS).clamp_min(0) ** (_ORIENTATIONS - 1)
            yield 2 * radial * lobe


def _local_similarity(
    c: Complex[Tensor, "batch h w"], d: Complex[Tensor, "batch h w"], window: int
) -> Float[Tensor, " batch"]:
    def pooled(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values.unsqueeze(1), window, stride=1)

    product = c * d.conj()
    shared = torch.hypot(pooled(product.real), pooled(product.imag))
    energy = pooled(c.abs().square() + d.abs().square())
    return ((2 * shared + _STABILISER) / (energy + _STABILISER)).flatten(1).mean(1)
