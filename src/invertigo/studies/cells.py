"""One cell: run its audit, refuse a result that time has cut short, and put it in its place."""

from __future__ import annotations

import io
import json
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from invertigo.studies.artifacts import make_artifact, read_victim
from invertigo.studies.expansion import CellSpec
from invertigo.studies.fitness import misfit
from invertigo.studies.store import FAILURE, LOG, RESULT, TENSORS, Store
from invertigo.types import InvertigoError, OutputError

TRUTH = "truth/"
"""Prefix of the originals in `reconstruction.safetensors`, as in the folder of a single audit."""


class CutShortError(InvertigoError):
    """An attack ended because time ran out, so another machine would have got further."""


@dataclass(frozen=True)
class Job:
    """One piece of work: a cell, or (with `artifact`) the thing that cells like it need first."""

    spec: CellSpec
    artifact: str | None = None

    @property
    def name(self) -> str:
        """Unique among the jobs of a study."""
        return f"artifact {self.artifact}" if self.artifact else self.spec.key


@dataclass(frozen=True)
class Outcome:
    """What became of a job; `error` is one line. `unwritable` ends the study, the others do not."""

    status: str
    """`done`, `failed`, `unwritable`, or `unfit`: this process would compute something else than the cell means."""
    seconds: float = 0.0
    error: str = ""


def work(url: str, job: Job, threads: int) -> Outcome:
    """Do a job and keep its result in the store at `url`. Only Ctrl-C is raised; all else becomes an `Outcome`."""
    started = time.monotonic()
    store = Store(url)
    unfit = misfit(job.spec.contents)
    if unfit:
        return Outcome("unfit", time.monotonic() - started, unfit)
    try:
        with _threads(threads):
            error = _make(store, job) if job.artifact else _run(store, job.spec)
    except OutputError as refused:
        return Outcome("unwritable", time.monotonic() - started, str(refused))
    return Outcome("failed" if error else "done", time.monotonic() - started, error)


def fail(store: Store, spec: CellSpec, error: str, trace: str, log: str = "") -> None:
    """Keep the failure of a cell with its traceback. Raises: OutputError."""
    content = json.dumps({"error": error, "traceback": trace}, indent=1).encode()
    store.keep(spec, {FAILURE: content, LOG: f"{log}{trace}\n".encode()})


def _make(store: Store, job: Job) -> str:
    if job.artifact and not store.has_artifact(job.artifact):
        try:
            make_artifact(store, job.artifact, job.spec.config)
        except OutputError:
            raise
        except Exception as error:
            # The cells that need it say what happened; the others go on.
            return _line(error)
    return ""


def _run(store: Store, spec: CellSpec) -> str:
    with _captured() as log:
        try:
            files = _audited(store, spec)
        except OutputError:
            raise
        except Exception as error:
            # One cell's crash is that cell's result; it is kept with its traceback, and the study goes on.
            fail(store, spec, _line(error), traceback.format_exc(), log.getvalue())
            return _line(error)
    store.keep(spec, {**files, LOG: (log.getvalue() + files[LOG].decode()).encode()})
    return ""


def _audited(store: Store, spec: CellSpec) -> dict[str, bytes]:
    """The files of a cell that ran. Raises: CutShortError, and whatever the audit raises."""
    from invertigo.auditing.auditor import run_audit
    from invertigo.auditing.budget import parse_budget
    from invertigo.auditing.scenario import Scenario
    from invertigo.auditing.staging import stage

    scenario = Scenario.model_validate(spec.config)
    case = stage(scenario, trained=read_victim(store, spec.needs[0]) if spec.needs else None)
    found = run_audit(
        case,
        attacks=scenario.attack_list(),
        levels=scenario.adversary.levels,
        budget=parse_budget(scenario.budget),
        seed=scenario.seed,
        decoys=scenario.decoys,
        progress=None,
        command=f"invertigo study (cell {spec.key})",
    )
    _refuse_cut_short(found.record, scenario.budget)
    files = {RESULT: found.record.model_dump_json(indent=1).encode(), LOG: _log(found.record).encode()}
    tensors = _tensors(found)
    return {**files, TENSORS: tensors} if tensors else files


def _refuse_cut_short(record: Any, budget: object) -> None:
    """An audit swallows Ctrl-C and a spent budget and reports on what is left; a cell is whole or it is nothing."""
    if any(flag.code == "interrupted" for flag in record.flags):
        raise KeyboardInterrupt
    for attack in record.attacks:
        given_up = attack.stopped == "budget" and not attack.exact  # an exact search has a bound of its own
        if given_up or (attack.status == "skipped" and "budget" in attack.reason):
            raise CutShortError(
                f"{attack.attack} on rung {attack.level} ran out of time (budget {budget}), so its result would depend "
                "on the speed of this machine. Raise base.budget or lower the attack's iterations."
            )


def _tensors(found: Any) -> bytes | None:
    from safetensors.torch import save

    tensors = dict(found.reconstructions)
    if found.originals is not None and not found.record.private:
        tensors |= {f"{TRUTH}{name}": tensor for name, tensor in found.originals.fields.items()}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain) if plain else None


def _log(record: Any) -> str:
    lines = [f"{record.created}  {record.title}"]
    for one in record.attacks:
        said = one.reason or (f"{one.stopped}, objective {one.objective:.4g}" if one.objective is not None else "")
        lines.append(f"rung {one.level}  {one.attack}  {one.status}  {one.seconds:.2f} s  {said}".rstrip())
    return "\n".join([*lines, f"{record.verdict.status}: {record.verdict.headline}", ""])


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, InvertigoError) and said else f"{type(error).__name__}: {said}"


@contextmanager
def _captured() -> Iterator[io.StringIO]:
    """What a cell prints and warns goes into its log, not over the progress display."""
    log = io.StringIO()
    with redirect_stdout(log), redirect_stderr(log), warnings.catch_warnings():
        warnings.simplefilter("default")
        yield log


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch on `count` threads: sums are then split alike, and equal, under every executor."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
