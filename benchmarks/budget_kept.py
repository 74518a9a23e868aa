"""Do audits keep their budget, and is the time left that they show right? Twenty scenarios of all kinds.

    python benchmarks/budget_kept.py [SECONDS] [NAME...]

For each: seconds asked and used by the audit itself (data and model are prepared before its clock starts), and how far
the time left that was shown from half time on was from the truth, as the median and the worst of these moments.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from invertigo.auditing import Scenario, audit
from invertigo.auditing.scenario import load_scenario
from invertigo.auditing.session import Stage

SECONDS = 10.0
INVERSION = {"name": "see_through_gradients", "restarts": 4}
SCENARIOS: dict[str, dict[str, Any]] = {
    "demo": {"of": "demo"},
    "faces-lenet": {"of": "faces-lenet"},
    "faces-mlp": {"of": "faces-mlp"},
    "digits-mlp": {"of": "digits-mlp"},
    "molecules": {"of": "molecules"},
    "photos-convnet": {"of": "photos-convnet"},
    "large images": {
        "data": {"name": "photos", "size": 128, "count": 4, "public_count": 2},
        "model": {"name": "convnet"},
    },
    "four restarts": {"data": {"size": 64, "count": 2}, "model": {"name": "resnet"}, "attacks": [INVERSION]},
    "four restarts, 128 px": {
        "data": {"name": "photos", "size": 128, "count": 2, "public_count": 2},
        "model": {"name": "resnet"},
        "attacks": [INVERSION, "inverting_gradients"],
    },
    "large batch": {"data": {"name": "digits", "count": 64}, "model": {"name": "lenet"}},
    "local steps": {"local": {"sends": "difference", "epochs": 3, "batch_size": 2}, "data": {"count": 8}},
    "noise, told and not": {"defense": {"name": "gaussian_noise", "std": 0.01}},
    "pruned": {"defense": "top_k", "data": {"count": 2}},
    "several clients": {"adversary": {"clients": 4}, "data": {"name": "digits", "count": 2}, "model": {"name": "mlp"}},
    "ten releases": {"adversary": {"releases": 10}, "defense": {"name": "gaussian_noise", "std": 0.01}},
    "malicious server": {"adversary": {"levels": [1, 5]}, "data": {"name": "digits"}, "model": {"name": "mlp"}},
    "trained": {"model": {"name": "lenet", "trained_epochs": 2}, "data": {"count": 1}},
    "vision transformer": {"model": {"name": "vit"}, "data": {"count": 2}},
    "network of molecules": {"data": {"name": "drugs", "count": 2}, "model": {"name": "gat"}},
    "reader": {"reader_epochs": 1, "data": {"name": "digits", "count": 4}, "model": {"name": "lenet"}},
}  # fmt: skip


@dataclass
class Watch:
    """Notes what the display would show."""

    started: float = field(default_factory=time.monotonic)
    shown: list[tuple[float, float]] = field(default_factory=list)
    stages: float = 0.0
    longest_silence: float = 0.0

    def __call__(self, stage: Stage) -> None:
        """Remember the moment and the time left of the whole audit."""
        now = time.monotonic() - self.started
        self.longest_silence = max(self.longest_silence, now - self.stages)
        self.stages = now
        self.shown.append((now, getattr(stage, "audit_left", stage.seconds_left)))

    def errors(self, total: float) -> list[float]:
        """Relative error of the time left at each moment from half time on, until a second before the end."""
        half = [(at, left) for at, left in self.shown if total / 2 <= at < total - 1]
        return [abs(left - (total - at)) / (total - at) for at, left in half]


def run(name: str, seconds: float) -> tuple[float, Watch]:
    """Seconds that the audit took, and what it showed."""
    wanted = dict(SCENARIOS[name])
    base = load_scenario(wanted.pop("of")) if "of" in wanted else Scenario.model_validate(wanted)
    watch = Watch()
    found = audit(base.model_copy(update={"compare": []}), budget=seconds, progress=watch)
    watch.started += time.monotonic() - watch.started - found.record.seconds if not watch.shown else 0
    return found.record.seconds, watch


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    kept = 0
    for name in sys.argv[2:] or SCENARIOS:
        try:
            used, watch = run(name, seconds)
        except Exception as error:
            print(f"| {name} | {type(error).__name__}: {error}")
            continue
        start = watch.shown[0][0] if watch.shown else 0.0
        del start
        over = used > 1.1 * seconds + 2
        kept += not over
        errors = watch.errors(used)
        shown = f"{statistics.median(errors):.0%} | {max(errors):.0%}" if errors else "– | –"
        silent = watch.longest_silence
        print(f"| {name} | {seconds:.0f} | {used:.1f}{' *' if over else ''} | {shown} | {silent:.1f} |", flush=True)
    print(f"{kept} kept their budget")


if __name__ == "__main__":
    main()
