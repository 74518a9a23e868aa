"""Private pictures: how they are normalised, compared, recognised and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.domains import learned_perceptual
from invertigo.domains.image_baselines import BASELINES, guesses, without
from invertigo.domains.image_metrics import mse, psnr, ssim
from invertigo.domains.image_range import infer_range
from invertigo.domains.lineup import likeness, ranks_in_lineup
from invertigo.domains.matching import UNMATCHED, match, squared_distances
from invertigo.domains.perceptual import perceptual_distance
from invertigo.domains.pictures import difference_png, png
from invertigo.types import Batch, Identification, InvalidValueError, Metric, MismatchError, Scores

_METRICS = (
    Metric("psnr", "PSNR", True, "dB", "peak signal-to-noise ratio, at most 160 dB"),
    Metric("ssim", "SSIM", True, "", "structural similarity, 1 for the same picture"),
    Metric("mse", "MSE", False, "", "mean squared error of pixels in [0, 1]"),
    Metric("perceptual", "Perceptual distance", False, "", "1 - complex-wavelet SSIM, 0 for the same picture"),
)
_LPIPS = Metric("lpips", "LPIPS", False, "", "learned perceptual distance (AlexNet), 0 for the same picture")
_MEASURES = {"psnr": psnr, "ssim": ssim, "mse": mse, "perceptual": perceptual_distance}


@dataclass(frozen=True)
class Images:
    """Pictures of one shape, which the model reads as `x = (pixel - mean) / std`.

    `shape` is (channel, height, width). Pixels lie in [`low`, `high`]; `mean` and `std`, one number a channel, are in
    the same unit. Scores are taken on pixels brought to [0, 1] and clamped there, in float64 on the CPU, so they do
    not depend on the normalisation, the dtype or the device of the attack; a pixel that is NaN counts as mid-grey.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    low: float = 0.0
    high: float = 1.0

    name: ClassVar[str] = "images"
    inputs: ClassVar[str] = "images"
    target: ClassVar[str] = "labels"
    baseline_labels: ClassVar[Mapping[str, str]] = BASELINES

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InvalidValueError(f"Images.shape is {self.shape}; it must be three positive sides.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, self._per_channel(name))
        if self.std is not None and min(self.std) <= 0:
            raise InvalidValueError(f"Images.std is {self.std}; the model divides by it, so it must be positive.")
        if not self.low < self.high:
            raise InvalidValueError(f"Pixels cannot range from low={self.low} to high={self.high}.")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """PSNR first; LPIPS last, only where its weights are on this machine."""
        return (*_METRICS, _LPIPS) if learned_perceptual.available() else _METRICS

    @classmethod
    def infer(cls, images: Tensor) -> tuple[Images, bool]:
        """The domain of a batch (batch, channel, height, width) whose owner states no normalisation.

        Returns the domain, and whether its range was read off these private images rather than known by convention:
        an attacker who is given such bounds knows a little more than the update told.

        Raises: MismatchError when `images` is no batch of images.
        """
        if images.ndim != 4:
            raise MismatchError(
                f"A batch of images has the shape (batch, channels, height, width), not {tuple(images.shape)}; "
                "for one image add the batch dimension with image.unsqueeze(0), for grey ones the channel. Tables, "
                "signals and sequences are no kind of data of their own yet: hand over rows of numbers as pictures of "
                "one row, x.view(len(x), 1, 1, -1), to a model that begins with nn.Flatten() or nn.Unflatten(...), and "
                "state their range with domain=Images(shape, low=..., high=...)."
            )
        if not images.numel():
            raise MismatchError(f"This batch holds no images (its shape is {tuple(images.shape)}): nothing to audit.")
        low, high, observed = infer_range(images)
        return cls((images.shape[1], images.shape[2], images.shape[3]), low=low, high=high), observed

    def config(self) -> dict[str, Any]:
        """Name and arguments, ready for JSON; `from_config` reads it back."""
        return {"name": self.name} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Images:
        """The domain that wrote `config`."""
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key != "name"
        }
        return cls(**arguments)

    def example_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """An attack rebuilds `images`; labels are inferred, not optimised."""
        return {self.inputs: self.shape}

    def bounds(self, name: str) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of a pixel as the model reads it, each (channel, 1, 1), float64 on the CPU."""
        if name != self.inputs:
            raise InvalidValueError(f"Field '{name}' of images has no bounds; only '{self.inputs}' has.")
        ends = (torch.full((self.shape[0], 1, 1), end, dtype=torch.float64) for end in (self.low, self.high))
        low, high = (self.from_pixels(end) for end in ends)
        return low, high

    def to_pixels(
        self, x: Float[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch channel height width"]:
        """From what the model reads to pixels in [low, high] (not clamped): `x * std + mean`."""
        std, mean = self._normalisation(x)
        return x * std + mean

    def from_pixels(
        self, pixels: Float[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch channel height width"]:
        """From pixels in [low, high] to what the model reads: `(pixel - mean) / std`."""
        std, mean = self._normalisation(pixels)
        return (pixels - mean) / std

    def to_unit(self, x: Float[Tensor, "*batch channel height width"]) -> Float[Tensor, "*batch channel height width"]:
        """From what the model reads to pixels brought to [0, 1] (not clamped)."""
        return (self.to_pixels(x) - self.low) / (self.high - self.low)

    def from_unit(
        self, pixels: Float[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch channel height width"]:
        """From pixels in [0, 1] to what the model reads."""
        return self.from_pixels(self.low + (self.high - self.low) * pixels)

    def score(self, truth: Batch, reconstruction: Mapping[str, Tensor]) -> Scores:
        """PSNR, SSIM, MSE and perceptual distance of each true image, against the rebuilt one matched to it.

        The matching is the assignment of least total squared error. A true image that no rebuilt one is left for is
        scored against mid-grey, and its matching is -1.
        """
        return self._score_pixels(self._unit_pixels(truth.fields, "truth"), self._unit_pixels(reconstruction))

    def baselines(self, truth: Batch, public: Batch | None) -> Mapping[str, Scores]:
        """Scores of pictures guessed without the update, by name; `baseline_labels` says what each one is.

        The random public images are the same in every call.
        """
        pixels = self._unit_pixels(truth.fields, "truth")
        known = None if public is None else self._unit_pixels(public.fields, "public data")
        made = guesses(pixels, known, torch.Generator().manual_seed(0))
        return {name: self._score_pixels(pixels, guess) for name, guess in made.items()}

    def identify(self, truth: Batch, reconstruction: Mapping[str, Tensor], decoys: Batch) -> Identification:
        """Rank of each true image among the decoys, by likeness to the rebuilt image matched to it.

        Labels play no part. Decoys that show the same picture as a true image are taken out of the line-up first.
        """
        pixels, rebuilt = self._unit_pixels(truth.fields, "truth"), self._unit_pixels(reconstruction)
        others = without(self._unit_pixels(decoys.fields, "decoys"), pixels)
        ranks = ranks_in_lineup(
            _cost(pixels, rebuilt),
            _cost(others, rebuilt),
            likeness(pixels, rebuilt),
            likeness(others, rebuilt),
        )
        return Identification(ranks, len(others))

    def render(self, fields: Mapping[str, Tensor]) -> list[bytes]:
        """One PNG per image: one or two channels in grey (the first), three or more as RGB (the first three)."""
        return [png(image) for image in self._unit_pixels(fields)]

    def difference(self, truth: Batch, reconstruction: Mapping[str, Tensor], matching: Tensor) -> list[bytes]:
        """One PNG per true image: where the rebuilt image matched to it is off, dark (nowhere) to yellow."""
        pixels = self._unit_pixels(truth.fields, "truth")
        paired = _in_order(self._unit_pixels(reconstruction), matching)
        return [difference_png(image, guess) for image, guess in zip(pixels, paired)]

    def in_order(self, reconstruction: Mapping[str, Tensor], matching: Tensor) -> dict[str, Tensor]:
        """The rebuilt images in the order of the truth, mid-grey where none was matched."""
        images = reconstruction[self.inputs]
        grey = torch.full((1, *self.shape), (self.low + self.high) / 2, dtype=images.dtype, device=images.device)
        extended = torch.cat([images, self.from_pixels(grey)])
        return {self.inputs: extended[matching.to(images.device)]}  # -1 is the last one: grey

    def _score_pixels(self, truth: Tensor, rebuilt: Tensor) -> Scores:
        matching = match(_cost(truth, rebuilt))
        paired = _in_order(rebuilt, matching)
        scores = {name: measure(truth, paired) for name, measure in _MEASURES.items()}
        if learned_perceptual.available():
            scores["lpips"] = learned_perceptual.lpips_distance(truth, paired)
        return Scores(scores, matching)

    def _unit_pixels(
        self, fields: Mapping[str, Tensor], what: str = "reconstruction"
    ) -> Float[Tensor, "batch channel height width"]:
        images = fields.get(self.inputs)
        if images is None or tuple(images.shape[1:]) != self.shape:
            found = f"the fields {list(fields)}" if images is None else f"images of {tuple(images.shape)}"
            raise MismatchError(
                f"The {what} holds {found}, but this domain compares '{self.inputs}' of shape (batch, "
                f"{', '.join(map(str, self.shape))}). Give Images(shape=...) the shape that the model reads."
            )
        return self.to_unit(images.detach().to("cpu", torch.float64)).nan_to_num(nan=0.5).clamp(0, 1)

    def _normalisation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        ones = (1.0,) * self.shape[0]
        zeros = (0.0,) * self.shape[0]
        std, mean = (like.new_tensor(v).view(-1, 1, 1) for v in (self.std or ones, self.mean or zeros))
        return std, mean

    def _per_channel(self, name: str) -> tuple[float, ...] | None:
        values: Sequence[float] | None = getattr(self, name)
        if values is None:
            return None
        listed = tuple(float(v) for v in values)
        if len(listed) != self.shape[0]:
            raise InvalidValueError(
                f"Images.{name} has {len(listed)} values for {self.shape[0]} channels; give one a channel."
            )
        return listed


def _cost(truth: Tensor, rebuilt: Tensor) -> Float[Tensor, "truths guesses"]:
    return squared_distances(truth.flatten(1), rebuilt.flatten(1))


def _in_order(
    rebuilt: Float[Tensor, "guesses channel height width"], matching: Int[Tensor, " truths"]
) -> Float[Tensor, "truths channel height width"]:
    grey = torch.full_like(rebuilt[:1], 0.5)
    paired = rebuilt[matching.clamp_min(0)]
    return torch.where((matching == UNMATCHED)[:, None, None, None], grey, paired)
