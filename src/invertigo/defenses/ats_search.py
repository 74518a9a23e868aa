"""The search for a transformation policy: random sequences, scored without training any model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from invertigo.defenses.ats_scores import jacobian_score, similarity_areas
from invertigo.defenses.transformation_policy import TABLE, Policy
from invertigo.domains import Images
from invertigo.models.memory import key
from invertigo.types import Batch, ConfigurationError, CorruptFileError, InvalidValueError, OutputError, Task


@dataclass(frozen=True, kw_only=True)
class Search:
    r"""How policies are searched for.

    Args:
        candidates: random sequences that are scored; 1,600 in the authors' code.
        operations: most operations in a sequence.
        examples: of each class, for the privacy score; 5 in the authors' code.
        group: examples whose Jacobians are compared for the accuracy score, and `groups` how many such groups.
        bins: points between noise and image at which gradients are compared.
        alpha: weight of the mean of the privacy score over the classes; its variance has the rest.
        least_accuracy: candidates under it are passed over. It is per example, so that it means the same for groups of
            any size: -1 is the best there is. The authors' -85 is for one example of each class among 100 of CIFAR-100,
            of which about 63 are expected.
        keep: so many of the best are joined to a policy.
    """

    candidates: int = 1600
    operations: int = 3
    examples: int = 5
    group: int = 64
    groups: int = 10
    bins: int = 20
    alpha: float = 0.7
    least_accuracy: float = -85 / (100 * (1 - 0.99**100))
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("candidates", "operations", "examples", "groups", "bins", "keep"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"Search.{name} is {getattr(self, name)}; it must be a positive whole number.")
        if self.group < 2:
            raise InvalidValueError(f"Search.group is {self.group}; correlations need at least two examples.")
        if not 0 <= self.alpha <= 1:
            raise InvalidValueError(f"Search.alpha is {self.alpha}; it is a weight in [0, 1].")


@dataclass(frozen=True)
class Candidate:
    """A sequence of operations with its scores: `similarity` and its `variance` over the classes (lower hides more),
    and `accuracy` per example, at most -1 (higher learns better)."""

    policy: str
    similarity: float
    variance: float
    accuracy: float


@dataclass(frozen=True)
class PolicySearch:
    """All candidates that were scored, and the settings that rank them."""

    candidates: tuple[Candidate, ...]
    settings: Search

    def ranked(self) -> list[Candidate]:
        r"""Accurate enough, the most private first: by $\alpha m + (1 - \alpha) v$, each brought to [0, 1] over all
        candidates, with $m$ the mean similarity and $v$ its variance."""
        means, variances = (_normalised([getattr(c, k) for c in self.candidates]) for k in ("similarity", "variance"))
        alpha = self.settings.alpha
        scored = [(alpha * m + (1 - alpha) * v, c) for m, v, c in zip(means, variances, self.candidates)]
        return [c for _, c in sorted(scored, key=lambda pair: pair[0]) if c.accuracy >= self.settings.least_accuracy]

    def policies(self) -> list[str]:
        """The best sequences, at most `keep`, the most private first."""
        return [candidate.policy for candidate in self.ranked()[: self.settings.keep]]

    def policy(self) -> str:
        """The best sequences joined, as `ATS(policy=...)` reads it. Raises: ConfigurationError when there is none."""
        best = self.policies()
        if not best:
            most = max((c.accuracy for c in self.candidates), default=math.nan)
            raise ConfigurationError(
                f"None of {len(self.candidates)} policies reaches an accuracy score of "
                f"{self.settings.least_accuracy:.3g} per example; the best has {most:.3g}. Score with a freshly "
                "initialised ReLU network (`untrained`), or lower Search.least_accuracy to what images reach without "
                "a policy."
            )
        return "+".join(best)


Watch = Callable[[int, int, Candidate], bool | None]
"""Called after each candidate with (done, total, candidate); returning True ends the search there."""


def search_policies(
    task: Task,
    public: Batch,
    settings: Search | None = None,
    *,
    generator: torch.Generator,
    untrained: nn.Module | None = None,
    file: Path | None = None,
    watch: Watch | None = None,
) -> PolicySearch:
    """Score random sequences of operations on public examples, by how they hide and how well they would be learnt.

    Args:
        task: with a model that is trained a little, for the privacy score (the authors train it on a tenth of the
            data, without a policy).
        untrained: for the accuracy score, a model at its initialisation; None takes the task's.
        file: one line of JSON a candidate, after one that identifies the search. A search that is interrupted goes on
            from there, to the same candidates and scores.

    Raises: ConfigurationError; CorruptFileError for a file of another search; OutputError.

    Source: Gao et al. (2021), Section 4, and the authors' code.
    """
    settings = settings or Search()
    bench = _Bench.laid_out(task, public, settings, untrained or task.model, generator)
    names = _sequences(settings, generator)
    done = _restored(file, bench.identity) if file is not None else {}
    scored: list[Candidate] = []
    for number, name in enumerate(names):
        candidate = done.get(name) or bench.score(name)
        if file is not None and name not in done:
            _append(file, json.dumps(asdict(candidate)))
        scored.append(candidate)
        if watch is not None and watch(number + 1, len(names), candidate):
            break
    return PolicySearch(tuple(scored), settings)


@dataclass(frozen=True)
class _Bench:
    """What all candidates are scored on: the same examples, and the same noise."""

    task: Task
    domain: Images
    untrained: nn.Module
    settings: Search
    pixels: Tensor
    labels: Tensor
    noise: Tensor
    groups: tuple[Tensor, ...]
    identity: str

    @classmethod
    def laid_out(
        cls, task: Task, public: Batch, settings: Search, untrained: nn.Module, generator: torch.Generator
    ) -> _Bench:
        if not isinstance(task.domain, Images):
            raise ConfigurationError(f"Policies transform images, but the task's domain is '{task.domain.name}'.")
        like = next(task.model.parameters())
        labels = public[task.domain.target].to(like.device)
        pixels = task.domain.to_unit(public[task.domain.inputs].to(like))
        if len(pixels) < settings.group:
            raise ConfigurationError(
                f"The search compares groups of {settings.group} public examples, but there are {len(pixels)}; pass "
                "more, or lower Search.group."
            )
        seed = f"{torch.randint(2**62, (), generator=generator, device=generator.device)}"
        order = torch.randperm(len(pixels), generator=_seeded(seed, "examples")).to(like.device)
        chosen = torch.cat([order[labels[order] == c][: settings.examples] for c in labels.unique()])
        noise = torch.rand(pixels[chosen].shape, generator=_seeded(seed, "noise"), dtype=torch.float64)
        drawn = [
            torch.randperm(len(pixels), generator=_seeded(seed, f"group {n}"))[: settings.group].to(like.device)
            for n in range(settings.groups)
        ]
        evidence = [*task.model.state_dict().values(), *untrained.state_dict().values()]
        identity = key(f"{seed} {_scoring(settings)} {task.domain}", evidence, public.fields)
        return cls(
            task, task.domain, untrained, settings, pixels, labels, noise.to(like), (chosen, *drawn), identity
        )  # fmt: skip

    def score(self, name: str) -> Candidate:
        policy, own = Policy.parse(name), _seeded(self.identity, name)
        chosen, *groups = self.groups
        labels = self.labels[chosen]
        areas = similarity_areas(
            self.task, policy.applied(self.pixels[chosen], own), labels, self.noise, bins=self.settings.bins
        )
        classes = torch.stack([areas[labels == c].mean() for c in labels.unique()])
        accuracies = [
            jacobian_score(self.untrained, self.domain.from_unit(policy.applied(self.pixels[g], own))) for g in groups
        ]
        return Candidate(
            name, classes.mean().item(), classes.var(correction=0).item(), sum(accuracies) / len(accuracies)
        )  # fmt: skip


def _sequences(settings: Search, generator: torch.Generator) -> list[str]:
    """Sequences of up to `operations` numbers of the table; a place holds none as often as each, so that some are
    shorter. Those that hold none at all or were drawn before are not scored."""
    shape = settings.candidates, settings.operations
    drawn = torch.randint(-1, len(TABLE), shape, generator=generator, device=generator.device).tolist()
    names = ("-".join(str(n) for n in row if n >= 0) for row in drawn)
    return [name for name in dict.fromkeys(names) if name]


def _scoring(settings: Search) -> tuple[int, ...]:
    """The settings that decide a score; the others only say how many there are and how they are ranked."""
    return settings.examples, settings.group, settings.groups, settings.bins


def _seeded(*parts: str) -> torch.Generator:
    """A generator of its own for each purpose, so that no candidate depends on those scored before it."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _normalised(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def _restored(file: Path, identity: str) -> dict[str, Candidate]:
    """Candidates by name, from a file that may end in a line that was cut off. Raises: CorruptFileError."""
    if not file.exists():
        _append(file, json.dumps({"search": identity}))
        return {}
    first, *rest = file.read_text(encoding="utf-8").split("\n")
    if _parsed(first).get("search") != identity:
        raise CorruptFileError(
            f"{file} holds another search: other examples, models, settings or seed. Remove it, or name another file."
        )
    if rest and rest[-1]:
        _append(file, "")
    known = [line for line in map(_parsed, rest) if line.keys() == Candidate.__dataclass_fields__.keys()]
    return {line["policy"]: Candidate(**line) for line in known}


def _parsed(line: str) -> Mapping:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _append(file: Path, line: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        raise OutputError(f"The search cannot be written to {file}: {error.strerror}.") from error
