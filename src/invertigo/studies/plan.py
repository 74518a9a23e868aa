"""Which cells a study asked for when it was run: kept beside them, so that reading them does not depend on the code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invertigo.studies.axes import Label
from invertigo.studies.identity import canonical

if TYPE_CHECKING:
    from invertigo.studies.expansion import CellSpec
    from invertigo.studies.spec import Study
    from invertigo.studies.store import Store

PLAN = "plan.json"


@dataclass(frozen=True)
class Planned:
    """A place in the grid, and the key of the cell that was to fill it; empty where nobody wrote it down."""

    coordinates: Mapping[str, Label]
    seed: int
    block: int = 0
    key: str = ""

    @property
    def place(self) -> str:
        """The same for all cells of this place, whatever they were computed with."""
        return place_of(self.coordinates, self.seed, self.block)


def place_of(coordinates: Mapping[str, Any], seed: int, block: int) -> str:
    """Coordinates, seed and batch as one text."""
    return canonical([dict(coordinates), seed, block])


def in_shard(key: str, shard: tuple[int, int]) -> bool:
    """Whether a cell belongs to part i of n, counted from 1: decided by its key alone."""
    return int(key, 16) % shard[1] == shard[0] - 1


def write_plan(store: Store, specs: Iterable[CellSpec]) -> None:
    """Note the cells of a run, in the order of its axes. Raises: OutputError."""
    rows = [[spec.key, spec.coordinates, spec.seed, spec.block] for spec in specs]
    store.place.write(PLAN, json.dumps(rows, ensure_ascii=False).encode())


def read_plan(store: Store, study: Study) -> list[Planned]:
    """The cells that were asked for; of a study run before plans were kept, those that its file asks for."""
    content = store.place.read(PLAN)
    try:
        rows = json.loads(content or b"")
        return [Planned(coordinates, seed, block, key) for key, coordinates, seed, block in rows]
    except (ValueError, TypeError):
        return _from_study(study)


def _from_study(study: Study) -> list[Planned]:
    from invertigo.studies.expansion import combinations, resolve

    found = []
    for combination in combinations(study):
        coordinates = {axis: point.label for axis, point in combination.items()}
        blocks = blocks_of(study, resolve(study, combination)["data"])
        found += [Planned(coordinates, seed, block) for seed, block in itertools.product(study.seeds, range(blocks))]
    return found


def blocks_of(study: Study, data: Mapping[str, Any]) -> int:
    """Batches that a study's examples take; `data` is that section of a resolved scenario."""
    return 1 if study.examples is None or data["indices"] else -(-study.examples // data["count"])


def same_experiment(study: Study, planned: Sequence[Planned], configs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Of cells at the same places, by place, those whose configuration is what the study file asks for now.

    What a scenario of an earlier version did not say yet counts as its default.
    """
    from invertigo.studies.expansion import combinations, resolve

    points = {canonical({a: p.label for a, p in one.items()}): one for one in combinations(study)}
    resolved: dict[str, Mapping[str, Any]] = {}
    same = set()
    for one in planned:
        point = canonical(dict(one.coordinates))
        if one.place in configs and point in points:
            if point not in resolved:
                resolved[point] = resolve(study, points[point])
            if _alike(resolved[point], configs[one.place]):
                same.add(one.place)
    return same


_OF_THE_CELL = frozenset({"title", "description", "expect", "compare", "budget", "seed", "attacks", "data", "defense"})


def _alike(asked: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    from pydantic import ValidationError

    from invertigo.auditing.scenario import Scenario

    try:
        ran = Scenario.model_validate(config).resolved()
    except ValidationError:
        return False
    names = set(asked) - _OF_THE_CELL
    return (
        all(asked[name] == ran.get(name) for name in names)
        and {n: v for n, v in asked["data"].items() if n not in ("skip", "pool")}
        == {n: v for n, v in ran["data"].items() if n not in ("skip", "pool")}
        and _sections(asked["defense"]) == _sections(ran["defense"])
        and all(_within(*pair) for pair in itertools.zip_longest(_listed(asked["attacks"]), _listed(ran["attacks"])))
    )


def _listed(attacks: Any) -> list[Any]:
    return list(attacks) if isinstance(attacks, list) else [attacks]


def _within(asked: Any, ran: Any) -> bool:
    """An attack with what was asked of it; a cell has its schedule written out besides."""
    wanted, held = _sections(asked), _sections(ran)
    if wanted is None or held is None:
        return wanted == held
    return all(held.get(name) == value for name, value in wanted.items())


def _sections(one: Any) -> dict[str, Any] | None:
    return {"name": one} if isinstance(one, str) else None if one is None else dict(one)
