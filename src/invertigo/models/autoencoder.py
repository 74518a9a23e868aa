"""A small convolutional autoencoder: the latent space that perturbations act in and that a trained prior searches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.models.building import Shape, checked_shape, weights_drawn_by
from invertigo.models.descent import Watch, descend
from invertigo.models.layers import positive
from invertigo.types import InvalidValueError

Pixels = Float[Tensor, "batch channel height width"]
Latents = Float[Tensor, "batch latent"]


class Encoder(nn.Module):
    """Two strided convolutions and a linear layer: pixels to latents."""

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        (_, height, wide), channels = shape, shape[0]
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.SiLU(),
        )  # fmt: skip
        self.linear = nn.Linear(2 * width * _quarter(height) * _quarter(wide), latent)

    def forward(self, pixels: Tensor) -> Tensor:
        """Latents (batch, latent) of pixels (batch, channel, height, width)."""
        return self.linear(self.convolutions(pixels).flatten(1))


class Decoder(nn.Module):
    """Latents to pixels in (0, 1), in `stages` whose inputs a search may take for its unknowns instead of the latents.

    Stage 0 reads latents (batch, latent), stage 1 maps at a quarter of the side, stage 2 maps at half of it.
    """

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        channels, height, wide = shape
        self.quarter_shape = (2 * width, _quarter(height), _quarter(wide))
        self.half_size = (_half(height), _half(wide))
        self.whole_size = (height, wide)
        self.linear = nn.Linear(latent, 2 * width * self.quarter_shape[1] * self.quarter_shape[2])
        self.middle = nn.Conv2d(2 * width, width, 3, padding=1)
        self.late = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, unknown: Tensor, stage: int = 0) -> Tensor:
        """Pixels from the input of `stage`."""
        for number in range(stage, 3):
            unknown = self.run(number, unknown)
        return unknown

    def run(self, stage: int, given: Tensor) -> Tensor:
        """The output of one stage."""
        if stage == 0:
            return F.silu(self.linear(given)).unflatten(1, self.quarter_shape)
        if stage == 1:
            return F.silu(self.middle(F.interpolate(given, size=self.half_size)))
        return torch.sigmoid(self.last(F.silu(self.late(F.interpolate(given, size=self.whole_size)))))


class Autoencoder(nn.Module):
    r"""$\hat x = D(E(x))$ on pixels in [0, 1], with latents standardised by the data it was fitted to.

    After `fit_autoencoder`, each latent coordinate has mean 0 and deviation 1 over those data, so that the length of a
    step in latent space has a meaning and a standard normal is a fair first guess.

    Args:
        shape: channels, height and width of one image.
        latent: number of latent coordinates.
        width: channels of the first convolution.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape, latent: int = 64, width: int = 16) -> None:
        super().__init__()
        positive(latent=latent, width=width)
        checked_shape(shape)
        self.encoder, self.decoder = Encoder(shape, latent, width), Decoder(shape, latent, width)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("deviation", torch.ones(latent))

    def encode(self, pixels: Tensor) -> Tensor:
        """Standardised latents (batch, latent)."""
        return (self.encoder(pixels) - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in (0, 1) of standardised latents."""
        return self.decoder(latents * self.deviation + self.mean)

    def forward(self, pixels: Tensor) -> Tensor:
        """The image as the latents keep it."""
        return self.decode(self.encode(pixels))


def fit_autoencoder(
    pixels: Pixels,
    *,
    latent: int = 64,
    width: int = 16,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> Autoencoder:
    r"""A new autoencoder trained on `pixels` by $\min \lVert D(E(x)) - x \rVert^2$ with Adam, annealed to zero.

    Everything is drawn from `generator`; the trained module is in inference mode with frozen weights.

    Raises: InvalidValueError when there is nothing to train on.
    """
    if len(pixels) < 2:
        raise InvalidValueError(f"An autoencoder cannot be fitted to {len(pixels)} image; give at least two.")
    channels, height, wide = pixels.shape[1:]
    with weights_drawn_by(generator):
        model = Autoencoder((channels, height, wide), latent, width).to(pixels)

    def loss(part: Tensor) -> Tensor:
        wanted = pixels[part.to(pixels.device)]
        return F.mse_loss(model(wanted), wanted)

    descend(
        model, loss, len(pixels), epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
        generator=generator, watch=watch,
    )  # fmt: skip
    return _standardised(model, pixels).requires_grad_(False).eval()


@torch.no_grad()
def _standardised(model: Autoencoder, pixels: Tensor) -> Autoencoder:
    deviation, mean = torch.std_mean(model.encoder(pixels), 0)
    model.mean.copy_(mean)
    # A coordinate that says nothing stays small instead of being blown up.
    model.deviation.copy_(deviation.clamp_min(1e-3 * float(deviation.max()) + 1e-12))
    return model


def _half(side: int) -> int:
    return -(-side // 2)


def _quarter(side: int) -> int:
    return _half(_half(side))
