"""Jobs on a Ray cluster: a node proves that it would compute the same before its first cell, or is set aside."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invertigo.studies.cells import Job, Outcome, work
from invertigo.studies.executors import TRIES
from invertigo.studies.spec import Resources
from invertigo.types import ConfigurationError
from invertigo.types.extras import require

FORWARDED = ("INVERTIGO_DATA", "HF_HOME", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")
"""Variables of this process that every worker gets, as they decide which data and which code it finds."""
SUSPICIOUS = 2
"""Cells that fail on a node and pass on another before the node is set aside."""


@dataclass(frozen=True)
class Surroundings:
    """Where a process looks for modules and data: its folder, its search path, and variables."""

    folder: str
    path: tuple[str, ...]
    variables: Mapping[str, str]

    @classmethod
    def here(cls) -> Surroundings:
        """Those of this process."""
        variables = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        return cls(os.getcwd(), tuple(sys.path), variables)

    def take_on(self) -> None:
        """Make them this process's own, as far as they are there."""
        os.environ.update(self.variables)
        sys.path += [place for place in self.path if place and place not in sys.path]
        if os.path.isdir(self.folder):
            os.chdir(self.folder)


@dataclass
class Ray:
    """A Ray cluster: the one at `address`, or one that is joined if it is known and started if it is not.

    A node whose code, data or libraries are not what a cell was named after gets no cell; nor does one on which cells
    fail that pass elsewhere. `say` is told so in one line each.
    """

    url: str
    resources: Resources
    address: str | None = None
    say: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr, flush=True))
    running: dict[Any, Job] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    """Nodes that are set aside, with the reason."""
    failures: dict[str, tuple[str, Outcome]] = field(default_factory=dict)
    """Jobs that failed once, by name: on which node, and how."""
    blamed: Counter[str] = field(default_factory=Counter)
    """By node, jobs that failed there and passed on another."""
    passed: set[str] = field(default_factory=set)
    """Nodes on which some job has passed."""

    def __post_init__(self) -> None:
        # A worker's current folder is not this one.
        self.url = self.url if "://" in self.url else os.path.abspath(self.url)
        self._ray = require("ray", "cluster")
        self._ours = not self._ray.is_initialized()
        if self._ours:
            # Threads are set for each cell; what a worker prints is in the log of its cell, and what Ray itself has to
            # say of its processes would bury the progress.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            self._ray.init(address=self.address, log_to_driver=False, logging_level="error")
        options = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus, "max_retries": TRIES - 1}
        self._work = self._ray.remote(**options)(_work_there)
        self._surroundings = Surroundings.here()

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
        self._hand_over(job)

    def next(self) -> tuple[Job, Outcome]:
        """See `Executor`."""
        while True:
            (ready, *_), _ = self._ray.wait(list(self.running), num_returns=1)
            job = self.running.pop(ready)
            try:
                node, outcome = self._ray.get(ready)
            except self._ray.exceptions.RayError as error:
                said = " ".join(str(error).split())[:300]
                return job, Outcome("failed", error=f"Its worker was lost {TRIES} times: {said}")
            settled = self._weighed(job, node, outcome)
            if settled is not None:
                return job, settled

    def close(self) -> None:
        """See `Executor`."""
        for reference in self.running:
            self._ray.cancel(reference, force=True)
        self.running.clear()
        if self._ours:
            self._ray.shutdown()

    def _weighed(self, job: Job, node: str, outcome: Outcome) -> Outcome | None:
        """The outcome, or None when the job goes to another node first."""
        if outcome.status == "unfit":
            self._set_aside(node, outcome.error)
            self._hand_over(job)
            return None
        if outcome.status == "done":
            self.passed.add(node)
            first = self.failures.pop(job.name, None)
            if first is not None and first[0] != node:
                self._blame(*first)
        elif outcome.status == "failed" and job.name not in self.failures and self._others(node):
            self.failures[job.name] = (node, outcome)
            self._hand_over(job, besides=node)
            return None
        return outcome

    def _blame(self, node: str, failure: Outcome) -> None:
        self.blamed[node] += 1
        if self.blamed[node] >= SUSPICIOUS and node not in self.aside:
            self._set_aside(node, f"cells fail there that pass on others: {failure.error}")

    def _set_aside(self, node: str, reason: str) -> None:
        if node in self.aside:
            return
        self.aside[node] = reason
        self.say(f"node {node[:12]} is set aside: {reason}")
        if not self._others(""):
            raise ConfigurationError(
                f"No node of the cluster is left that would compute what this one means; the last: {reason}. Install "
                "the same Invertigo, modules, data and libraries on all nodes."
            )

    def _others(self, node: str) -> list[str]:
        """Nodes that may still get cells, without `node`."""
        alive = [one["NodeID"] for one in self._ray.nodes() if one["Alive"] and one["Resources"].get("CPU")]
        return [one for one in alive if one != node and one not in self.aside]

    def _hand_over(self, job: Job, besides: str = "") -> None:
        """Give the job to Ray; to one of the fit nodes by name as soon as some are not."""
        work = self._work
        if self.aside or besides:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            fit = sorted(self._others(besides)) or [besides]
            chosen = fit[len(self.running) % len(fit)]
            work = work.options(scheduling_strategy=NodeAffinitySchedulingStrategy(chosen, soft=False))
        self.running[work.remote(self.url, job, self.resources.cpus, self._surroundings)] = job


def _work_there(url: str, job: Job, threads: int, surroundings: Surroundings) -> tuple[str, Outcome]:
    """The job's outcome, and the node that it was done on."""
    import ray

    surroundings.take_on()
    return ray.get_runtime_context().get_node_id(), work(url, job, threads)
