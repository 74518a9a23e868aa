"""The results as flat tables: a row for every attack on every rung of every cell, and a row for every example."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any

from invertigo.auditing.record import AttackRecord, AuditRecord
from invertigo.studies.guard_values import GUARD, read_guard
from invertigo.studies.slices import plain
from invertigo.studies.values import AGGREGATES, CLIENT, COUNTS, Value, best_guess, read, read_attack, strongest
from invertigo.types.errors import InvalidValueError
from invertigo.types.extras import require

if TYPE_CHECKING:
    from invertigo.studies.store import CellResult

Scalar = str | int | float | bool | None
_KINDS = {bool: "bool_", int: "int64", float: "float64", str: "string"}


@dataclass(frozen=True)
class Frame:
    """Rows of scalars under one set of columns; None where a row has no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]

    def records(self) -> list[dict[str, Scalar]]:
        """The rows as mappings, e.g. for `pandas.DataFrame.from_records`."""
        return [dict(zip(self.columns, row)) for row in self.rows]

    def csv(self) -> bytes:
        """RFC 4180 with a header, numbers in full precision, an empty field for no value."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_text(value) for value in row] for row in self.rows)
        return text.getvalue().encode("utf-8")

    def parquet(self) -> bytes:
        """Apache Parquet, a column of one type each. Raises: MissingExtraError without pyarrow."""
        arrow, files = require("pyarrow", "study"), require("pyarrow.parquet", "study")
        columns = {name: self._typed([row[i] for row in self.rows], arrow) for i, name in enumerate(self.columns)}
        buffer = io.BytesIO()
        files.write_table(arrow.table(columns), buffer, compression="zstd")
        return buffer.getvalue()

    def _typed(self, values: Sequence[Scalar], arrow: Any) -> Any:
        """One type for a column: a whole number beside a fraction becomes a fraction, anything mixed a text."""
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            return arrow.array([None if v is None else float(v) for v in values], arrow.float64())
        if len(kinds) > 1:
            return arrow.array([None if v is None else _text(v) for v in values], arrow.string())
        return arrow.array(values, getattr(arrow, _KINDS[kinds.pop() if kinds else str])())


def attack_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every attack on every rung; one row for a cell that failed, was not run, or tried no attack.

    The study's axes come under their own names, what the audit recorded under `attack.*`, and every value that a
    claim can name under that name. `strongest` marks the attack that speaks for its cell.
    """
    return _frame(_attack_rows(results))


def example_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every private example under every attack that was scored."""
    return _frame(_example_rows(results))


def guard_frame(results: Iterable[CellResult]) -> Frame:
    """A row for every adversary of every guarded federation, with each value that a claim can name."""
    return _frame(_guard_rows(results))


def timing_frame(results: Iterable[CellResult]) -> Frame:
    """What varies from run to run: seconds, why an attack stopped, when. Kept out of the other frames."""
    return _frame(_timing_rows(results))


def frame_files(results: Sequence[CellResult], *, parquet: bool | None = None) -> dict[str, bytes]:
    """Contents by file name: `results`, `examples` and `timings` as CSV; the first two as Parquet too.

    All but `timings.csv` depend on nothing but the results, byte for byte, in whatever order they come.

    Args:
        parquet: None writes Parquet where pyarrow is installed.
    """
    wanted = find_spec("pyarrow") is not None if parquet is None else parquet
    frames = {"results": attack_frame(results), "examples": example_frame(results)}
    files = {f"{name}.csv": frame.csv() for name, frame in frames.items()}
    if any(result.record and result.record.guard for result in results):
        files["guard.csv"] = guard_frame(results).csv()
    files |= {f"{name}.parquet": frame.parquet() for name, frame in frames.items()} if wanted else {}
    return files | {"timings.csv": timing_frame(results).csv()}


def _attack_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        record, base = result.record, _identity(result)
        if record is None:
            yield base | {"status": "failed" if result.failure else "missing"}
            continue
        base |= {"status": "done", "verdict": record.verdict.status, "examples": record.num_examples}
        base |= {name: read(record, Value(name)).number for name in CLIENT} if record.defense or record.utility else {}
        speaker, guesses = strongest(record), _guesses(record)
        for attack in record.attacks:
            yield base | _attack_row(record, attack) | {"strongest": attack is speaker} | guesses
        if not record.attacks:
            yield base | guesses


def _attack_row(record: AuditRecord, attack: AttackRecord) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {
        "attack.name": attack.attack,
        "attack.level": attack.level,
        "attack.status": attack.status,
        "attack.exact": attack.exact,
        "attack.informed": attack.informed,
        "attack.labels": attack.labels,
        "attack.reason": attack.reason,
    }
    if attack.status != "ran":
        return facts
    values = [Value(name) for name in COUNTS]
    values += [Value(metric.name, how) for metric in record.metrics for how in AGGREGATES]
    scored = attack.scores.get(record.metrics[0].name)
    return facts | {str(value): read_attack(record, attack, value).number if scored else None for value in values}


def _guesses(record: AuditRecord) -> dict[str, Scalar]:
    guess = best_guess(record)
    if guess is None:
        return {}
    means = {f"guess.{m.name}.mean": fmean(guess.scores[m.name]) for m in record.metrics if guess.scores.get(m.name)}
    return {"guess.name": guess.name, **means}


def _example_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        for attack in result.record.ran if result.record else ():
            base = _identity(result) | {"attack.name": attack.attack, "attack.level": attack.level}
            base |= {"attack.informed": attack.informed}
            for i in range(max(map(len, attack.scores.values()), default=0)):
                row = base | {"example": i + 1}
                row |= {name: values[i] for name, values in attack.scores.items()}
                row |= {"outcome": attack.outcomes[i]} if attack.outcomes else {}
                yield row | ({"rank": attack.ranks[i], "decoys": attack.decoys} if attack.ranks else {})


def _guard_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        guard = result.record.guard if result.record else None
        if guard is None:
            continue
        for one in guard.adversaries:
            row = _identity(result) | {"adversary": one.name, "attack.name": one.attack, "tuned": one.tuned}
            values = {name: read_guard(guard, name, one.name) for name in GUARD}
            yield row | {n: v if isinstance(v, float) else None for n, v in values.items()} | {"reason": one.skipped}


def _timing_rows(results: Iterable[CellResult]) -> Iterable[dict[str, Scalar]]:
    for result in results:
        record = result.record
        if record is None:
            continue
        base = _identity(result) | {"created": record.created, "cell.seconds": record.seconds}
        for attack in record.attacks:
            yield base | {
                "attack.name": attack.attack,
                "attack.level": attack.level,
                "attack.informed": attack.informed,
                "attack.seconds": attack.seconds,
                "attack.stopped": attack.stopped,
            }


def _identity(result: CellResult) -> dict[str, Scalar]:
    coordinates: dict[str, Scalar] = {axis: _scalar(value) for axis, value in result.coordinates.items()}
    taken = sorted(set(coordinates) & _RESERVED)
    if taken:
        raise InvalidValueError(f"An axis is called '{taken[0]}', as a column of the results is; give it another name.")
    return coordinates | {"seed": result.seed, "block": result.block, "cell": result.key}


_RESERVED = {"seed", "block", "cell", "status", "verdict", "examples", "example", "strongest", "outcome", "rank"}


def _frame(rows: Iterable[Mapping[str, Scalar]]) -> Frame:
    """Columns in the order in which they first occur in the sorted rows, so that their order is settled too."""
    ordered = sorted(rows, key=_order)
    columns = tuple(dict.fromkeys(name for row in ordered for name in row))
    return Frame(columns, tuple(tuple(row.get(name) for name in columns) for row in ordered))


def _order(row: Mapping[str, Scalar]) -> tuple[tuple[int, float, str], ...]:
    """By the axes as the study names them, then by what tells apart the rows of one point."""
    names = list(row)
    axes = names[: names.index("seed")]
    return tuple(_rank(row.get(name)) for name in [*axes, *_PRECEDENCE])


_PRECEDENCE = ["seed", "block", "cell", "attack.level", "attack.name", "attack.informed", "example", "adversary"]


def _rank(value: Scalar) -> tuple[int, float, str]:
    """Numbers by size before texts by letter, so that 8 stands before 16."""
    if isinstance(value, (bool, int, float)):
        return 0, float(value), ""
    return (1, 0.0, value) if isinstance(value, str) else (2, 0.0, "")


def _scalar(value: Any) -> Scalar:
    return value if value is None or isinstance(value, (bool, int, float, str)) else plain(value)


def _text(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
