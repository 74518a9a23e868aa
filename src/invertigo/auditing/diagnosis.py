"""What a doctor found out about a training step, without attacking it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]
_ORDER: Mapping[Severity, int] = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One property of the training step that bears on privacy.

    `critical`: private data follow from the update by algebra. `warning`: it helps an attacker. `info`: good to know.
    `layer` is the module's name, or empty when the finding concerns the whole step.
    """

    code: str
    severity: Severity
    layer: str
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Findings on one model, loss and batch size, the gravest first."""

    findings: tuple[Finding, ...]
    model: str
    batch_size: int
    mode: str
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(sorted(self.findings, key=lambda f: _ORDER[f.severity])))

    @property
    def leaks_exactly(self) -> bool:
        """Some private data follow from the update by algebra, without any optimisation."""
        return any(finding.severity == "critical" for finding in self.findings)

    def __getitem__(self, code: str) -> Finding:
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(code)

    def __contains__(self, code: str) -> bool:
        return any(finding.code == code for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"leaks_exactly": self.leaks_exactly}

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        lines = [f"{self.model} · input {shape} · batch {self.batch_size} · {self.mode} mode"]
        for finding in self.findings:
            where = f" [{finding.layer}]" if finding.layer else ""
            lines += ["", f"{finding.severity.upper()}  {finding.code}{where}", _indented(finding.message)]
            if finding.fix:
                lines.append(_indented(f"Fix: {finding.fix}"))
        counts = {s: sum(f.severity == s for f in self.findings) for s in _ORDER}
        lines += ["", ", ".join(f"{n} {severity}" for severity, n in counts.items()) + ". No attack was run."]
        return "\n".join(lines)


def _indented(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="  ")
