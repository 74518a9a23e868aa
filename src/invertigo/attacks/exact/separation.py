"""Take a first layer's gradients apart into single examples, whatever the loss weighed each of them with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from invertigo.attacks.exact.alone import Alone
from invertigo.attacks.exact.factors import CERTAIN, Factors, factor
from invertigo.attacks.exact.neurons import Neurons
from invertigo.attacks.exact.peeling import Layer, clusters, combine
from invertigo.attacks.exact.sparse import independent, proven, sparsest, vanishing_on

BATCH = 16
"""Starts searched together."""
PATIENCE = 6
"""Batches of starts without a new example after which the search gives up."""
ROUNDS = 32
DOUBTS = 6
"""Times that a complete but contradictory set of shares is doubted."""
LARGEST = 400
"""Most examples that are separated this way: the work grows with their square."""
ALIKE = 3e-5
"""Relative difference from the simulated derivative up to which a simulation proves an example."""

Plausible = Callable[[Tensor], Tensor]


@dataclass
class Separation:
    """What was separated: layer inputs (row, feature) and shares (row, neuron), of `rank` independent examples.

    `rest` is the share of the gradients that the examples found do not explain; `found` counts the shares, which may
    be more than the examples whose inputs could be proven.
    """

    inputs: Tensor
    shares: Tensor
    rank: int
    rest: float
    found: int

    @property
    def complete(self) -> bool:
        """Every independent example was separated, and together they are the whole gradient."""
        return len(self.inputs) == self.rank


@dataclass
class Search:
    r"""The state of a separation of $A = [g_W | g_b] = \sum_j \delta_j (x_j, 1)^\top$.

    The rank of A counts the independent examples, and its column space holds every share $\delta_j$. A share is zero
    wherever the example leaves a neuron silent: at half of all neurons with ReLU, where any other vector of that space
    can be made zero at rank - 1 neurons only. So the shares are found as the sparse vectors of the column space,
    without the loss, the labels or a scale. All of them together give all inputs by least squares; single ones are
    taken off where at least two neurons, or the simulated example, show the input as well.
    """

    layer: Layer
    neurons: Neurons
    size: int | None
    plausible: Plausible
    reach: float
    """What the learning rate makes of the gradients: outputs move that far while the client takes several steps."""
    deadline: float
    rank: int = 0
    counts: Tensor | None = None
    """(choice,) how often each target is in the batch, as a guess that steers the search."""
    alone: Alone | None = None
    """Simulates single examples, where that is possible."""
    asked: Callable[[], bool] = lambda: False

    def run(self) -> Separation | None:
        """Separate as much as possible. None when the gradients have no clear rank or no neuron is ever silent."""
        live = self.layer.weight.any(1) & (self.layer.bias != 0)
        matrix = self._matrix(self.layer)[live]
        whole = factor(matrix, self.layer.eps, self.size)
        self.rank = 0 if whole is None else whole.rank
        if whole is None or whole.rank > min(LARGEST, len(matrix) // 2) or whole.rank == matrix.shape[1]:
            return None
        if not self._can_be_silent(whole, int(live.sum())):
            return None
        rest, shares, inputs, found = replace(self.layer), [], [], whole.basis[:0]
        searched = False
        for _ in range(ROUNDS):
            factors = factor(self._matrix(rest)[live], self.layer.eps, whole.rank - len(shares))
            if factors is None or factors.rank < whole.rank - len(shares):
                break
            found = self._shown(rest, factors, live)
            for _ in range(DOUBTS if searched else 1):
                found = self._searched(rest, factors, live, found) if searched else found
                everything = self._all(matrix, live, shares, found @ factors.basis.T)
                if everything is not None:
                    return everything
                if len(found) < factors.rank or self._late():
                    break
                found = found[:-1]  # one is a mixture; the least silent one is the likeliest
            taken = self._take(rest, factors, found, live)
            shares += [share for share, _ in taken]
            inputs += [one for _, one in taken]
            if self._late() or (searched and not taken):
                break
            searched = not taken
        if not inputs:
            return Separation(matrix[:0, :-1], matrix.T[:0], whole.rank, 1.0, len(found))
        kept = torch.stack(shares)
        left = float(self._matrix(rest)[live].norm() / matrix.norm())
        return Separation(torch.stack(inputs), self._spread(kept, live), whole.rank, left, len(shares) + len(found))

    def _matrix(self, layer: Layer) -> Tensor:
        return torch.cat([layer.weight, layer.bias[:, None]], dim=1)

    def _late(self) -> bool:
        return time.monotonic() > self.deadline or self.asked()

    def _spread(self, shares: Tensor, live: Tensor) -> Tensor:
        everywhere = shares.new_zeros(len(shares), len(live))
        everywhere[:, live] = shares
        return everywhere

    def _can_be_silent(self, factors: Factors, live: int) -> bool:
        """At random outputs of the layer, are enough neurons without influence?"""
        drawn = self._random_outputs(4, torch.Generator().manual_seed(1))
        silent = (self.neurons.pulled(self._neutral(4), drawn) == 0).double().mean()
        return float(silent) * live > factors.rank

    def _neutral(self, count: int) -> Tensor:
        """(row, feature) inputs that tell nothing: the ratio of all neurons, which is a mean of the examples."""
        whole = combine(self.layer.weight, self.layer.bias)
        return whole.expand(count, -1)

    def _random_outputs(self, count: int, generator: torch.Generator) -> Tensor:
        usual = self.neurons.outputs(self._neutral(1)).square().mean().sqrt().clamp_min(1e-6)
        drawn = torch.randn(count, len(self.layer.bias), generator=generator, dtype=torch.float64)
        return usual * drawn.to(self.layer.bias)

    def _searched(self, rest: Layer, factors: Factors, live: Tensor, known: Tensor) -> Tensor:
        """(row, r) independent directions of single shares, the `known` ones and those that a search adds."""
        generator, idle, chosen = torch.Generator().manual_seed(0), 0, known
        while len(chosen) < factors.rank and idle < PATIENCE and not self._late():
            starts = self._starts(factors, live, generator, self._missing(factors, live, chosen))
            if len(chosen) and idle % 2:
                starts = self._left_over(rest, factors, live, generator, chosen)
            new = [p for row in sparsest(factors, starts) if (p := proven(factors, row)) is not None]
            before, chosen = len(chosen), independent(factors, [*chosen, *new])
            idle = 0 if len(chosen) > before else idle + 1
        return chosen

    def _missing(self, factors: Factors, live: Tensor, known: Tensor) -> Tensor | None:
        """(choice,) how often each target is still to be found, as far as that can be guessed; None: no idea."""
        targets = self.neurons.targets
        if targets is None:
            return None
        everywhere = torch.ones(len(targets), dtype=torch.float64)
        if self.counts is None or not len(known):
            return everywhere if self.counts is None else self.counts.cpu().double()
        found = torch.bincount(self._targets(self._spread(known @ factors.basis.T, live)), minlength=len(targets))
        missing = (self.counts.cpu() - found).clamp_min(0).double()
        return missing if bool(missing.any()) else everywhere

    def _targets(self, shares: Tensor) -> Tensor:
        """(row,) number of the target that shares (row, neuron) look most like, were their neurons equally active."""
        assert self.neurons.targets is not None
        usual = self._random_outputs(1, torch.Generator().manual_seed(0)).abs().mean()
        on = (shares.abs() > 1e-6 * shares.abs().amax(1, keepdim=True)).double()
        numbers = torch.arange(len(self.neurons.targets), device=shares.device)
        inputs, outputs = self._neutral(len(shares)), usual * (2 * on - 1)
        made = [self.neurons.at(inputs, outputs, number.expand(len(shares))) for number in numbers]
        return torch.stack([cosine_similarity(one, shares).abs() for one in made]).argmax(0).cpu()

    def _starts(self, factors: Factors, live: Tensor, generator: torch.Generator, missing: Tensor | None) -> Tensor:
        """(start, r) shares of made-up examples, as the column space sees them."""
        outputs, inputs = self._random_outputs(BATCH, generator), self._neutral(BATCH)
        if missing is None:
            made = self.neurons.pulled(inputs, outputs, int(torch.randint(0, 2**31, (1,), generator=generator)))
        else:
            made = self.neurons.at(inputs, outputs, torch.multinomial(missing, BATCH, True, generator=generator))
        noise = torch.randn(len(made), factors.rank, generator=generator, dtype=torch.float64).to(made)
        starts = made[:, live] @ factors.basis
        return torch.where(starts.norm(dim=1, keepdim=True) > 0, starts, noise)

    def _left_over(
        self, rest: Layer, factors: Factors, live: Tensor, generator: torch.Generator, known: Tensor
    ) -> Tensor:
        """(start, r) directions nearly silent where a mixture of the inputs that are not `known` leaves neurons silent.

        Off the known shares, every row of the gradients is such a mixture; of one input, it is the input.
        """
        frame = torch.linalg.qr((known @ factors.basis.T).T).Q
        matrix = self._matrix(rest)[live]
        matrix = matrix - frame @ (frame.T @ matrix)
        strong = matrix[:, -1].abs().argsort(descending=True)[: len(matrix) // 4]
        rows = strong[torch.randperm(len(strong), generator=generator)[:BATCH].to(strong.device)]
        inputs = matrix[rows, :-1] / matrix[rows, -1:]
        return vanishing_on(factors, self._silent(inputs)[:, live], rows)[0]

    def _shown(self, rest: Layer, factors: Factors, live: Tensor) -> Tensor:
        """(row, r) directions that are zero wherever the input shown by some neuron's ratio leaves neurons silent."""
        rows, ratios, _ = rest.ratios()
        kept = self.plausible(ratios) & live[rows]
        places = (live.cumsum(0) - 1)[rows[kept]]
        found: list[Tensor] = []
        for some, anchors in zip(ratios[kept].split(128), places.split(128)):
            p, left = vanishing_on(factors, self._silent(some)[:, live], anchors)
            near = left < CERTAIN * factors.rounding(p)
            found += [q for row in p[near] if (q := proven(factors, row)) is not None]
        return independent(factors, found)

    def _silent(self, inputs: Tensor) -> Tensor:
        moved = None
        if self.reach:
            moved = self.reach * (inputs @ self.layer.weight.T + self.layer.bias).abs()
        return self.neurons.silent(inputs, moved)

    def _agrees(self, inputs: Tensor, shares: Tensor, zero: Tensor) -> Tensor:
        """(row,) no share is anything (`zero` (row,): rounding) where its input leaves the neuron silent."""
        outside = torch.where(self._silent(inputs), shares.abs(), 0.0).amax(1)
        return (outside <= zero) & self.plausible(inputs)

    def _all(self, matrix: Tensor, live: Tensor, taken: list[Tensor], found: Tensor) -> Separation | None:
        """All inputs at once from all shares; None where one of them contradicts its own share."""
        shares = torch.cat([torch.stack(taken), found]) if taken else found
        if len(shares) < self.rank:
            return None
        shares = shares / shares.norm(dim=1, keepdim=True)
        frame, triangle = torch.linalg.qr(shares.T)
        whole = torch.linalg.solve_triangular(triangle, frame.T @ matrix, upper=True)
        weights = whole[:, -1]
        if not len(shares) or bool((weights == 0).any()):
            return None
        inputs = whole[:, :-1] / weights[:, None]
        rest = float((matrix - shares.T @ whole).norm() / matrix.norm())
        scaled = self._spread(shares * weights[:, None], live)
        zero = 100 * ALIKE * scaled.abs().amax(1)
        good = self._agrees(inputs, scaled, zero)
        return Separation(inputs, scaled, len(shares), rest, len(shares)) if bool(good.all()) else None

    def _take(self, rest: Layer, factors: Factors, directions: Tensor, live: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Examples whose inputs neurons show, taken off `rest`: (share of live neurons, layer input)."""
        taken: list[tuple[Tensor, Tensor]] = []
        groups = clusters(rest, self.plausible)
        if not groups or not len(directions):
            return taken
        inputs = torch.stack([combine(rest.weight[g], rest.bias[g]) for g in groups])
        silent = torch.cat([self._silent(some) for some in inputs.split(256)])
        shares = self._spread(directions @ factors.basis.T, live)
        zero = CERTAIN * factors.rounding(directions)
        for share, least in zip(shares, zero):
            on = share.abs() > least
            fits = ~(silent & on).any(1)
            for number in fits.nonzero()[:, 0].tolist():
                group = groups[number]
                if not bool(on[group].all()):
                    continue
                scale = (rest.bias[group] @ share[group]) / share[group].square().sum()
                if len(group) > 1 or self._simulated(inputs[number], share * scale):
                    taken.append(((share * scale)[live], inputs[number]))
                    rest.remove(inputs[number], share * scale)
                    break
        return taken

    def _simulated(self, inputs: Tensor, share: Tensor) -> bool:
        """The share is what the example alone, or it several times, does to every neuron, with some label.

        One neuron may show a mixture with little of a second example in it. That changes the size of the share by as
        much, so nothing is proven where the gradients have an unknown scale.
        """
        if self.alone is None or self.size is None:
            return False
        numbers = torch.arange(len(self.alone.targets), device=inputs.device)
        made = self.alone(inputs.expand(len(numbers), -1), numbers) / self.size
        times = ((made @ share) / made.square().sum(1).clamp_min(1e-300)).round().clamp_min(1)
        error = (made * times[:, None] - share).norm(dim=1) / share.norm()
        return bool((error < min(ALIKE, 100 * self.layer.eps**0.5)).any())
