"""Is the first model really the initialisation that was declared?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from invertigo.guards.matrices import Matrix, matrices, wide
from invertigo.guards.nulls import at_least_one
from invertigo.guards.registry import register
from invertigo.types import INVERTIGO, Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class FirstModel:
    """Kolmogorov-Smirnov tests of the first model received against models drawn as the server says it drew it.

    Each tensor's values are compared with those of `draws` declared initialisations, and each layer's row norms and
    bias-to-norm ratios with theirs, which crafted rows change even where the values keep their law. A tensor that every
    draw makes the same (zeros, ones) must be that. A client has no history yet in its first round, so this is what
    stands in for it; a client that joins a running federation must leave `Declared.initial` unset.

    Args:
        draws: models drawn for comparison.
        most: values of a tensor that are compared, evenly spread.
    """

    name: ClassVar[str] = "first_model"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"initial"})

    draws: int = 4
    most: int = 20_000

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        initial = local.declared.initial
        if initial is None or history.visits:
            return ()
        drawn = [Received(initial(torch.Generator().manual_seed(seed)).state_dict()) for seed in range(self.draws)]
        tests: list[tuple[float, float, str, str]] = []
        for name, sent in received.tensors.items():
            known = [d.tensors[name] for d in drawn if name in d.tensors and d.tensors[name].shape == sent.shape]
            if known and sent.is_floating_point():
                tests.append((*self._compare(sent, known), name, "values"))
        tests += self._rows(received, drawn, local)
        return tuple(self._finding(*test) for test in tests)

    def _rows(self, received: Received, drawn: list[Received], local: Local) -> list[tuple[float, float, str, str]]:
        mine = matrices(received, local)
        theirs = [{m.name: m for m in matrices(d, local)} for d in drawn]
        found = []
        for matrix in mine:
            if len(matrix.weight) < 8:
                continue
            for what, measure in _MEASURES.items():
                values, known = measure(matrix), [measure(t[matrix.name]) for t in theirs if matrix.name in t]
                whole = [k for k in known if k is not None]
                if values is not None and whole:
                    found.append((*self._compare(values, whole), matrix.name, what))
        return found

    def _compare(self, sent: Tensor, known: list[Tensor]) -> tuple[float, float]:
        """KS statistic and p-value; of tensors that are always the same, whether this one is."""
        if all(bool((k == known[0]).all()) for k in known[1:]) and len(known) > 1:
            same = torch.equal(sent.to(known[0]), known[0])
            return (0.0, 1.0) if same else (1.0, 0.0)
        one = self._spread(sent)
        others = torch.cat([self._spread(k) for k in known])
        if len(one) < 8:
            return 0.0, 1.0
        from scipy import stats  # dear to import, and for this guard alone

        found: Any = stats.ks_2samp(one.numpy(), others.numpy(), method="asymp")
        return float(found.statistic), min(1.0, float(found.pvalue))

    def _spread(self, tensor: Tensor) -> Tensor:
        flat = wide(tensor).flatten().cpu()
        step = max(1, len(flat) // self.most)
        return flat[::step]

    def _finding(self, statistic: float, p: float, name: str, what: str) -> Finding:
        message = f"The {what} of '{name}' differ from the declared initialisation's (KS distance {statistic:.2g})."
        action = "Ask for the seed of the initial model, or for its signature; do not train on it."
        return Finding(self.name, self.gate, "malice", statistic, at_least_one(p, 1), message, action, layer=name)


_MEASURES: dict[str, Callable[[Matrix], Tensor | None]] = {
    "row norms": lambda m: m.weight.norm(dim=1),
    "bias-to-norm ratios": lambda m: None if m.bias is None else m.bias / m.weight.norm(dim=1).clamp_min(1e-30),
    "row sums": lambda m: m.weight.sum(1),
}
