"""How an inverter is trained: on some of the public images, judged on the others, and never worse than a regression."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from invertigo.attacks.amortised.inverter import Inverter, matched_error, new_inverter
from invertigo.attacks.matching.pace import Pace
from invertigo.models.building import Shape

REGRESSION, HELD_OUT, PART = 768, 192, 64
"""Simulated clients that the linear part is fitted to, that it and the network are judged by, and that are simulated
at a time."""
CHECKS = 10
"""How often the network is judged in one training."""
Draw = Callable[[int, bool], tuple[Tensor, Tensor]]
"""Sketches and pixels of so many new simulated clients; True: with the public images that are held out."""


def trained_inverter(
    shape: Shape, draw: Draw, pace: Pace, *, hidden: int, clients: int, learning_rate: float, generator: torch.Generator
) -> tuple[Inverter, float, str]:
    """The inverter that did best on held-out images, its mean squared error there, and why the training ended.

    A few public images that are drawn again and again can be learnt by heart, by a regression as by a network; only
    images that neither was fitted to tell how well a private one will come back.
    """
    sketches, pixels = _many(draw, REGRESSION, held_out=False)
    judged = _many(draw, HELD_OUT, held_out=True)
    inverter = new_inverter(shape, pixels.shape[1], sketches, generator=generator, hidden=hidden)
    inverter.regress(sketches, pixels, *judged)
    best, least = copy.deepcopy(inverter), _error(inverter, judged)
    optimiser = torch.optim.Adam(inverter.parameters(), learning_rate)
    stopped, done = "schedule", 0
    while done < pace.total and stopped == "schedule":
        sketches, pixels = draw(clients, False)
        loss = matched_error(inverter(sketches), pixels).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * done / pace.total))
        optimiser.step()
        done += 1
        if pace.asks_to_stop(done, loss.detach()[None]) and done < pace.total:
            stopped = "budget"
        if done % max(1, pace.total // CHECKS) == 0 or done == pace.total or stopped == "budget":
            error = _error(inverter, judged)
            if error < least:
                best, least = copy.deepcopy(inverter), error
    return best.requires_grad_(False), least, stopped


def _many(draw: Draw, clients: int, *, held_out: bool) -> tuple[Tensor, Tensor]:
    parts = [draw(PART, held_out) for _ in range(clients // PART)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@torch.no_grad()
def _error(inverter: Inverter, judged: tuple[Tensor, Tensor]) -> float:
    return matched_error(inverter(judged[0]).clamp(0, 1), judged[1]).mean().item()
