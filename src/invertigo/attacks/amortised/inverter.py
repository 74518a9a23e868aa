"""The network that turns the sketch of an update into the images behind it, and how it is trained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invertigo.domains.matching import match, squared_distances
from invertigo.models.autoencoder import Decoder
from invertigo.models.building import Shape, weights_drawn_by

Images = Float[Tensor, "client batch channel height width"]


class Inverter(nn.Module):
    """Sketches (client, size) to pixels in (0, 1), (client, batch, channel, height, width): two layers and a decoder.

    A sketch is brought to unit length first and its length is passed on as one more number, then all are
    standardised by the `calibrate`d moments: gradients of trained and untrained networks differ by decades in size.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape, count: int, sketch: int, *, hidden: int = 512, width: int = 24) -> None:
        super().__init__()
        self.count = count
        self.body = nn.Sequential(
            nn.Linear(sketch + 1, hidden), nn.SiLU(), nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden * count), nn.SiLU(),
        )  # fmt: skip
        self.decoder = Decoder(shape, hidden, width)
        self.register_buffer("mean", torch.zeros(sketch + 1))
        self.register_buffer("deviation", torch.ones(sketch + 1))

    def forward(self, sketches: Tensor) -> Tensor:
        """Pixels of sketches."""
        latents = self.body((_scaled(sketches) - self.mean) / self.deviation)
        return self.decoder(latents.unflatten(1, (self.count, -1)).flatten(0, 1)).unflatten(0, (-1, self.count))

    @torch.no_grad()
    def calibrate(self, sketches: Tensor) -> None:
        """Take the moments of these sketches for those of all."""
        deviation, mean = torch.std_mean(_scaled(sketches), 0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(float(deviation.max()) * 1e-3 + 1e-12))


def new_inverter(
    shape: Shape, count: int, sketches: Float[Tensor, "client sketch"], *, generator: torch.Generator, hidden: int = 512
) -> Inverter:
    """An untrained inverter for batches of `count` images, calibrated on `sketches`; weights come from `generator`."""
    with weights_drawn_by(generator):
        inverter = Inverter(shape, count, sketches.shape[1], hidden=hidden).to(sketches)
    inverter.calibrate(sketches)
    return inverter


def matched_error(rebuilt: Images, truth: Images) -> Float[Tensor, " client"]:
    """Mean squared error of each client's batch after the best assignment of rebuilt to true images."""
    if truth.shape[1] > 1:
        with torch.no_grad():
            costs = [squared_distances(t.flatten(1), r.flatten(1)) for t, r in zip(truth, rebuilt)]
            order = torch.stack([match(cost) for cost in costs]).to(rebuilt.device)
        rebuilt = rebuilt[torch.arange(len(rebuilt), device=rebuilt.device)[:, None], order]
    return (rebuilt - truth).square().flatten(1).mean(1)


def _scaled(sketches: Tensor) -> Tensor:
    length = sketches.norm(dim=1, keepdim=True).clamp_min(torch.finfo(sketches.dtype).tiny)
    return torch.cat([sketches / length, length.log()], dim=1)
