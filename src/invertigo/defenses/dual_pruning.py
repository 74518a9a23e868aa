"""Dual gradient pruning: send neither the largest nor the smallest entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.registry import register
from invertigo.defenses.releases import mean_release
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step

Tensors = Mapping[str, Tensor]


@register
@dataclass(frozen=True, kw_only=True)
class DualPruning(Defense):
    r"""Layer by layer, zero the `largest` share and the `smallest` share of entries by magnitude.

    $\tilde g_i = 0$ where $|g_i|$ is one of the largest $\lfloor k_1 d\rfloor$ or smallest $\lfloor k_2 d\rfloor$ of a
    layer's $d$ entries, and $g_i$ otherwise; equal entries rank by their index. Of every layer at least one entry is
    left out as too large (if $k_1 > 0$), so that no layer is sent whole.

    With `error_feedback` the client adds what it left out of a round to its next update, $e_{t+1} = g_t + e_t - \tilde
    g_t$. That is good for training, and for an adversary who adds the rounds up. It makes the object remember **one**
    client: give each client its own.

    Args:
        largest: $k_1$ in [0, 1).
        smallest: $k_2$ in [0, 1), with `largest + smallest` in (0, 1).
        error_feedback: keep what was left out for the next round.

    Source: Xue et al. (2024), from its abstract; the authors published no code, and the default shares are ours.
    """

    name: ClassVar[str] = "dual_pruning"
    paper: ClassVar[Paper] = Paper(
        "xue2024revisiting",
        "Revisiting Gradient Pruning: A Dual Realization for Defending against Gradient Attacks",
        "Xue, Lulu and Hu, Shengshan and Zhao, Ruizhi and Zhang, Leo Yu and Hu, Shengqing and Sun, Lichao and Yao, "
        "Dezhong",
        2024,
        "AAAI Conference on Artificial Intelligence",
        "2401.16687",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "smallest"
    strengths: ClassVar[tuple[float, ...]] = (0.3, 0.5, 0.75, 0.9)

    largest: float = 0.05
    smallest: float = 0.75
    error_feedback: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.largest < 1 and 0 <= self.smallest < 1 and 0 < self.largest + self.smallest < 1):
            raise InvalidValueError(
                f"dual_pruning.largest is {self.largest} and dual_pruning.smallest is {self.smallest}: they are shares "
                "of a layer, each in [0, 1), and together more than 0, or the true update is sent, and less than 1, or "
                "nothing is left to learn from. The defaults are 0.05 and 0.75."
            )
        object.__setattr__(self, "_left_over", _LeftOver())

    def on_update(self, update: Tensors, step: Step) -> Tensors:
        """The update without its largest and smallest entries."""
        memory: _LeftOver = self._left_over  # type: ignore[attr-defined]
        whole = memory.added_to(update, step.round) if self.error_feedback else update
        sent = {name: tensor * self.kept(tensor) for name, tensor in whole.items()}
        if self.error_feedback:
            memory.keep({name: whole[name] - sent[name] for name in whole}, step.round)
        entries = sum(tensor.numel() for tensor in sent.values())
        step.facts["kept"] = sum(int(tensor.count_nonzero()) for tensor in sent.values()) / entries
        return sent

    def kept(self, tensor: Tensor) -> Tensor:
        """1 where an entry is sent and 0 where it is too large or too small, in the form of `tensor`."""
        count = tensor.numel()
        too_small = int(self.smallest * count + 1e-9)
        too_large = max(int(self.largest * count + 1e-9), 1 if self.largest > 0 else 0)
        order = tensor.detach().double().abs().flatten().argsort(stable=True)
        mask = torch.ones(count, dtype=tensor.dtype, device=tensor.device)
        mask[order[:too_small]] = 0
        mask[order[count - too_large :]] = 0
        return mask.view_as(tensor)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Match what was sent and leave the zeros out; with error feedback, match the mean of all rounds."""
        several = self.error_feedback and len(observation.releases) > 1
        update = mean_release(observation) if several else observation.update
        also = ", and averages all rounds, into which left-out entries come back" if several else ""
        return AdversaryView(
            knows=f"The adversary sees which entries are zero and leaves them out{also}.",
            update=update if several else None,
            visible={name: (tensor != 0).to(tensor) for name, tensor in update.tensors.items()},
        )


class _LeftOver:
    """What one client did not send so far."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._round = -1

    def added_to(self, update: Tensors, number: int) -> dict[str, Tensor]:
        if number == 0:
            self._tensors = {}
        elif number == self._round:
            raise InvalidValueError(
                f"dual_pruning with error_feedback was asked twice for round {number}: it keeps what one client left "
                "out, and would send one client's private entries with another's update. Give each client an object "
                "of its own (dataclasses.replace(defense)), or switch error_feedback off."
            )
        return {name: t + self._tensors[name] if name in self._tensors else t for name, t in update.items()}

    def keep(self, left_over: Tensors, number: int) -> None:
        self._tensors, self._round = {name: t.detach().clone() for name, t in left_over.items()}, number
