"""The network that turns the sketch of an update into the images behind it, and how it is trained."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invertigo.domains.matching import match, squared_distances
from invertigo.models.autoencoder import Decoder
from invertigo.models.building import Shape, weights_drawn_by

Images = Float[Tensor, "client batch channel height width"]


class Inverter(nn.Module):
    """Sketches (client, size) to pixels (client, batch, channel, height, width): two layers and a decoder.

    A sketch is brought to unit length first and its length is passed on as one more number, then all are
    standardised by the `calibrate`d moments: gradients of trained and untrained networks differ by decades in size.
    After `regress`, the decoder draws only what a linear map of the sketch leaves over.
    """

    mean: Tensor
    deviation: Tensor
    linear: Tensor
    offset: Tensor

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
        self.register_buffer("linear", torch.zeros(sketch + 1, count * math.prod(shape)))
        self.register_buffer("offset", torch.zeros(count, *shape))

    def forward(self, sketches: Tensor) -> Tensor:
        """Pixels of sketches."""
        inputs = self._standardised(sketches)
        latents = self.body(inputs).unflatten(1, (self.count, -1)).flatten(0, 1)
        drawn = self.decoder(latents).unflatten(0, (-1, self.count))
        return drawn + self.offset + (inputs @ self.linear).view_as(drawn)

    @torch.no_grad()
    def calibrate(self, sketches: Tensor) -> None:
        """Take the moments of these sketches for those of all."""
        deviation, mean = torch.std_mean(_scaled(sketches), 0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(float(deviation.max()) * 1e-3 + 1e-12))

    @torch.no_grad()
    def regress(self, sketches: Tensor, truth: Tensor, held_sketches: Tensor, held_truth: Tensor) -> None:
        """Fit the linear map of sketches (client, size) to `truth` (client, batch, channel, height, width) by ridge.

        Its strength is chosen on the held-out clients, whose images must be others.
        """
        middle = truth.flatten(1).mean(0)
        held = self._standardised(held_sketches), held_truth.flatten(1) - middle
        self.linear.copy_(ridge(self._standardised(sketches), truth.flatten(1) - middle, *held))
        # The decoder starts at mid-grey.
        self.offset.copy_(middle.view_as(self.offset) - 0.5)

    def _standardised(self, sketches: Tensor) -> Tensor:
        return (_scaled(sketches) - self.mean) / self.deviation


def ridge(
    inputs: Float[Tensor, "client size"],
    wanted: Float[Tensor, "client target"],
    held_inputs: Float[Tensor, "held size"],
    held_wanted: Float[Tensor, "held target"],
) -> Float[Tensor, "size target"]:
    r"""$\arg\min_W \lVert X W - Y \rVert^2 + \lambda \lVert W \rVert^2$, with the best $\lambda$ for what is held out.

    Solved through the clients' inner products, so it costs no more for larger sketches.
    """
    train, test = inputs.double(), held_inputs.double()
    values, vectors = torch.linalg.eigh(train @ train.T)
    projected, seen = vectors.T @ wanted.double(), test @ train.T @ vectors
    scale = float(values.mean().clamp_min(1e-300))

    def weights(strength: float) -> Tensor:
        return projected / (values.clamp_min(0) + strength * scale)[:, None]

    def error(strength: float) -> float:
        return float((seen @ weights(strength) - held_wanted).square().mean())

    best = min((10.0 ** (power / 2) for power in range(-12, 9)), key=error)
    return (train.T @ (vectors @ weights(best))).to(wanted)


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
