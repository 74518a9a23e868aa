"""Running a study: what is missing is computed, what is there is kept."""

from __future__ import annotations

import json
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from invertigo.studies.cells import Job, Outcome, fail
from invertigo.studies.executors import Executor, executor_for
from invertigo.studies.expansion import CellSpec, expand, shard_of
from invertigo.studies.plan import write_plan
from invertigo.studies.progress import Tally, Watcher
from invertigo.studies.spec import Study, parse_study
from invertigo.studies.store import STUDY, Store
from invertigo.types.errors import ConfigurationError, CorruptFileError, MissingDataError, OutputError


@dataclass(frozen=True)
class Summary:
    """How a run ended: counts of cells, and the failed ones with one line each."""

    total: int
    reused: int
    done: int
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Every cell has a result."""
        return self.reused + self.done == self.total


def run_study(
    study: Study,
    out: str | Path,
    *,
    preset: str | None = None,
    jobs: int = 1,
    ray: str | bool = False,
    shard: tuple[int, int] | None = None,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
    executor: Executor | None = None,
) -> Summary:
    """Run the cells of a study that `out` does not have yet; running again is resuming.

    Args:
        out: a folder, or a URL that fsspec reads; with Ray, a place that all nodes see.
        preset: the scale, see `Study.presets`; None is the study as written.
        jobs: processes of this machine.
        ray: True to start or join a Ray cluster, or its address.
        shard: (i, n) for part i of n, counted from 1; the parts may run anywhere, into the same place.
        retry_failed: run failed cells again; without it they keep their traceback and are not counted as missing.
        watcher: told what happens.
        executor: where to run instead of what `jobs` and `ray` say.

    Ctrl-C ends the run with what is whole. Raises: ConfigurationError before anything runs; OutputError when nothing
    more can be written, with every earlier cell whole.
    """
    whole = expand(study, preset, checked=True)
    specs = list({spec.key: spec for spec in shard_of(whole, shard)}.values())
    store = Store(out)
    store.place.prepare()
    write_study(store, study, preset)
    write_plan(store, whole)
    todo, old = _todo(store, specs, retry_failed)
    tally = Tally(total=len(specs), reused=len(specs) - len(todo))
    if not todo:
        _tell(watcher, tally, None, None)
        return _summary(tally, {}, old)
    where = executor or executor_for(str(out), study.resources, jobs=jobs, ray=ray)
    tally.slots = where.slots
    _tell(watcher, tally, None, None)
    course = _Course(store, where, tally, watcher)
    interrupted = False
    try:
        course.run(todo)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        with _undisturbed():
            where.close()
            store.place.sweep({spec.key for spec in todo} if interrupted else set())
    return _summary(tally, course.failures, old, interrupted)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C is ignored for as long as it takes to stop the workers; impatient people press it twice."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted, and only it may say what happens then
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def write_study(store: Store, study: Study, preset: str | None) -> None:
    """Keep what was asked for beside the cells, so that tables know the axes. Raises: OutputError."""
    content = {"preset": preset, "study": study.model_dump(mode="json")}
    store.place.write(STUDY, json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_study(store: Store) -> tuple[Study, str | None]:
    """The study that was last run into a place, and its preset. Raises: MissingDataError, CorruptFileError."""
    content = store.place.read(STUDY)
    if content is None:
        raise MissingDataError(f"There is no study at {store.url}: it has no {STUDY}. Run `invertigo study` into it.")
    try:
        kept = json.loads(content)
        return parse_study(kept["study"], f"{store.url}/{STUDY}"), kept["preset"]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise CorruptFileError(f"{store.url}/{STUDY} is damaged ({error}); run the study again.") from error


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8). Raises: ConfigurationError."""
    part, slash, count = text.partition("/")
    if not (slash and part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)):
        raise ConfigurationError(f"--shard is {text!r}; write i/n with i from 1 to n, e.g. 2/8.")
    return int(part), int(count)


@dataclass
class _Course:
    """One run: artifacts first, a cell as soon as what it needs is there, never more jobs than there are slots."""

    store: Store
    where: Executor
    tally: Tally
    watcher: Watcher | None
    failures: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Artifacts that could not be made, with the reason."""

    def run(self, todo: Sequence[CellSpec]) -> None:
        makers = _makers(self.store, todo)
        missing = set(makers)
        queue: deque[Job] = deque([*makers.values(), *(Job(spec) for spec in todo)])
        held: list[Job] = []
        running = 0
        while queue or running:
            while queue and running < self.tally.slots:
                job = queue.popleft()
                if job.artifact is None and missing & set(job.spec.needs):
                    held.append(job)
                elif job.artifact is None and self._doomed(job):
                    continue
                else:
                    self._begin(job)
                    running += 1
            if not running:
                continue
            ended = self._end(*self.where.next())
            running -= 1
            if ended.artifact:
                missing.discard(ended.artifact)
                queue.extendleft(reversed([job for job in held if ended.artifact in job.spec.needs]))
                held = [job for job in held if ended.artifact not in job.spec.needs]

    def _begin(self, job: Job) -> None:
        self.tally.begin(job)
        _tell(self.watcher, self.tally, job, None)
        self.where.submit(job)

    def _end(self, job: Job, outcome: Outcome) -> Job:
        if outcome.status == "unwritable":
            raise OutputError(outcome.error)
        if outcome.status == "unfit":
            raise ConfigurationError(
                f"Something has changed since the study was started: {outcome.error}. Cells that are done are whole; "
                "run the same command again."
            )
        if outcome.status == "failed" and job.artifact:
            self.broken[job.artifact] = outcome.error
        elif outcome.status == "failed":
            self.failures[job.spec.key] = outcome.error
            if self.store.state(job.spec.key) != "failed":  # its worker died before it could say so
                fail(self.store, job.spec, outcome.error, outcome.error)
        self.tally.end(job, outcome)
        _tell(self.watcher, self.tally, job, outcome)
        return job

    def _doomed(self, job: Job) -> bool:
        """Fail a cell whose artifact could not be made."""
        reason = next((self.broken[key] for key in job.spec.needs if key in self.broken), None)
        if reason is None:
            return False
        fail(self.store, job.spec, reason, f"The model that this cell attacks could not be trained: {reason}")
        self._end(job, Outcome("failed", error=reason))
        return True


def _makers(store: Store, todo: Iterable[CellSpec]) -> dict[str, Job]:
    """A job for every artifact that is needed and not there."""
    needed = {key: spec for spec in reversed(list(todo)) for key in spec.needs}
    return {key: Job(spec, key) for key, spec in reversed(needed.items()) if not store.has_artifact(key)}


def _todo(store: Store, specs: Sequence[CellSpec], retry_failed: bool) -> tuple[list[CellSpec], dict[str, str]]:
    """The cells to compute, and those that stay failed with the last line of their traceback."""
    states = store.scan(spec.key for spec in specs)
    failed = [spec for spec in specs if states[spec.key] == "failed" and not retry_failed]
    left = {spec.key for spec in failed}
    todo = [spec for spec in specs if states[spec.key] != "done" and spec.key not in left]
    store.place.sweep({spec.key for spec in todo})
    return todo, {spec.key: _last_line(store.load(spec.key).failure) for spec in failed}


def _last_line(trace: str | None) -> str:
    return ((trace or "").strip().splitlines() or ["failed"])[-1]


def _summary(tally: Tally, new: dict[str, str], old: dict[str, str], interrupted: bool = False) -> Summary:
    return Summary(tally.total, tally.reused - len(old), tally.done, {**old, **new}, interrupted)


def _tell(watcher: Watcher | None, tally: Tally, job: Job | None, outcome: Outcome | None) -> None:
    if watcher is not None:
        watcher(tally, job, outcome)
