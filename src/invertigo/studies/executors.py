"""Where jobs run: here, in processes of this machine, or on a Ray cluster. A lost worker's job is run once more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from invertigo.studies.cells import Job, Outcome, work
from invertigo.studies.spec import Resources

TRIES = 2
"""A worker may die once of something else; the second time it is the cell that kills it."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@runtime_checkable
class Executor(Protocol):
    """Takes jobs, gives back outcomes as they come."""

    @property
    def slots(self) -> int:
        """How many jobs are worth handing over at once."""
        ...

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        ...

    def next(self) -> tuple[Job, Outcome]:
        """Wait for one of the jobs handed over."""
        ...

    def close(self) -> None:
        """Stop now; jobs that are still running are abandoned, which the store survives."""
        ...


@dataclass
class Here:
    """In this process, one after another."""

    url: str
    resources: Resources
    waiting: list[Job] = field(default_factory=list)
    slots: int = 1

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        self.waiting.append(job)

    def next(self) -> tuple[Job, Outcome]:
        """See `Executor`."""
        job = self.waiting.pop(0)
        return job, work(self.url, job, self.resources.cpus)

    def close(self) -> None:
        """See `Executor`."""
        self.waiting.clear()


@dataclass
class Processes:
    """`jobs` processes of this machine, fewer where their threads would outnumber its cores.

    Each is a pool of one, so that when a process dies it is known which job it had.
    """

    url: str
    resources: Resources
    jobs: int
    pools: list[ProcessPoolExecutor] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    running: dict[Future[Outcome], tuple[Job, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pools = [_pool() for _ in range(self.slots)]
        self.idle = list(range(self.slots))

    @property
    def slots(self) -> int:
        """See `Executor`."""
        return min(self.jobs, max(1, cores() // self.resources.cpus))

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        self._start(job, self.idle.pop(0), 1)

    def next(self) -> tuple[Job, Outcome]:
        """See `Executor`."""
        while True:
            (future, *_) = wait(self.running, return_when=FIRST_COMPLETED).done
            job, place, attempt = self.running.pop(future)
            try:
                outcome = future.result()
            except BrokenProcessPool as error:
                self.pools[place].shutdown(wait=False, cancel_futures=True)
                self.pools[place] = _pool()
                if attempt < TRIES:
                    self._start(job, place, attempt + 1)
                    continue
                outcome = Outcome("failed", error=f"Its process was killed {TRIES} times ({error}); out of memory?")
            self.idle.append(place)
            return job, outcome

    def close(self) -> None:
        """See `Executor`."""
        for pool in self.pools:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes if self.running else ():
                process.kill()
        self.running.clear()

    def _start(self, job: Job, place: int, attempt: int) -> None:
        with _deaf(), _threads_of(self.resources.cpus):
            future = self.pools[place].submit(work, self.url, job, self.resources.cpus)
        self.running[future] = (job, place, attempt)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def executor_for(url: str, resources: Resources, *, jobs: int = 1, ray: str | bool = False) -> Executor:
    """The executor that the options ask for; `ray` is True, or the address of a cluster."""
    if ray:
        from invertigo.studies.cluster import Ray

        return Ray(url, resources, None if ray is True else ray)
    return Processes(url, resources, jobs) if jobs > 1 else Here(url, resources)


def _pool() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads, as PyTorch has, may hang
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_settle)


@contextmanager
def _threads_of(count: int) -> Iterator[None]:
    """A process started in here has `count` threads in every library, which read this once, when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ |= dict.fromkeys(_THREADS, str(count))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _deaf() -> Iterator[None]:
    """A process started in here never hears Ctrl-C, not even while it imports; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle() -> None:
    """In a new process: leave Ctrl-C to the parent, and end when the parent does, even when that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)
