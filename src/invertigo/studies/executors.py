"""Where jobs run: here, in processes of this machine, or on a Ray cluster. A lost worker's job is run once more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from invertigo.studies.cells import Job, Outcome, work
from invertigo.studies.spec import Resources
from invertigo.types.extras import require

TRIES = 2
"""A worker may die once of something else; the second time it is the cell that kills it."""


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
        return min(self.jobs, max(1, cores() // self.resources.cpus)) if self.resources.cpus > 1 else self.jobs

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
        with _deaf():
            future = self.pools[place].submit(work, self.url, job, self.resources.cpus)
        self.running[future] = (job, place, attempt)


@dataclass
class Ray:
    """A Ray cluster: the one at `address`, or one that is joined if it is known and started if it is not."""

    url: str
    resources: Resources
    address: str | None = None
    running: dict[Any, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A worker's current folder is not this one.
        self.url = self.url if "://" in self.url else os.path.abspath(self.url)
        self._ray = require("ray", "cluster")
        self._ours = not self._ray.is_initialized()
        if self._ours:
            # Threads are set for each cell; what a worker prints is in the log of its cell.
            self._ray.init(address=self.address, log_to_driver=False, logging_level="error")
        options = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus, "max_retries": TRIES - 1}
        self._work = self._ray.remote(**options)(work)

    @property
    def slots(self) -> int:
        """See `Executor`; some more than fit, so that no node waits for this process."""
        there: Mapping[str, float] = self._ray.cluster_resources()
        fit = there.get("CPU", 1) / self.resources.cpus
        if self.resources.gpus:
            fit = min(fit, there.get("GPU", 0) / self.resources.gpus)
        return max(1, int(fit)) + 4

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        self.running[self._work.remote(self.url, job, self.resources.cpus)] = job

    def next(self) -> tuple[Job, Outcome]:
        """See `Executor`."""
        (ready, *_), _ = self._ray.wait(list(self.running), num_returns=1)
        job = self.running.pop(ready)
        try:
            return job, self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            said = " ".join(str(error).split())[:300]
            return job, Outcome("failed", error=f"Its worker was lost {TRIES} times: {said}")

    def close(self) -> None:
        """See `Executor`."""
        for reference in self.running:
            self._ray.cancel(reference, force=True)
        self.running.clear()
        if self._ours:
            self._ray.shutdown()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def executor_for(url: str, resources: Resources, *, jobs: int = 1, ray: str | bool = False) -> Executor:
    """The executor that the options ask for; `ray` is True, or the address of a cluster."""
    if ray:
        return Ray(url, resources, None if ray is True else ray)
    return Processes(url, resources, jobs) if jobs > 1 else Here(url, resources)


def _pool() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads, as PyTorch has, may hang
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_settle)


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
