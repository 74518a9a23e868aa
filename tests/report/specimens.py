"""Audits made by hand, so that the report is tested without running an attack: faces, and noisy versions of them."""

from __future__ import annotations

from typing import Any

import torch
from skimage.data import lfw_subset

from invertigo.auditing import Audit
from invertigo.auditing.record import (
    CONTROLS,
    AttackRecord,
    AuditRecord,
    BaselineRecord,
    ControlRecord,
    FlagRecord,
    LevelRecord,
    MetricRecord,
    VerdictRecord,
)
from invertigo.domains import Images
from invertigo.types import INVERTIGO, Batch, Paper, ThreatLevel

DLG = Paper("zhu2019deep", "Deep Leakage from Gradients", "Zhu, Ligeng and Liu, Zhijian and Han, Song", 2019, "NeurIPS")
UNEXAMINED = {
    0: "only one client: there is no sum to hide in",
    3: "not asked for",
    4: "no public data at hand",
    5: "no malicious-server attack in this audit",
}


def faces(count: int, size: int = 25, channels: int = 1) -> torch.Tensor:
    pixels = torch.tensor(lfw_subset()[:count], dtype=torch.float32)[:, None]
    return torch.nn.functional.interpolate(pixels, size=size).repeat(1, channels, 1, 1)


def outcome(psnr: float) -> str:
    return "exact" if psnr > 60 else "recognisable" if psnr > 18 else "nothing"


def attack_record(
    domain: Images, truth: Batch, rebuilt: torch.Tensor, name: str, level: int, **more: Any
) -> AttackRecord:
    scores = domain.score(truth, {"images": rebuilt})
    strangers = Batch({"images": faces(200, domain.shape[1], domain.shape[0])[100:]})
    found = domain.identify(truth, {"images": rebuilt}, strangers)
    psnr = scores.per_example["psnr"].tolist()
    return AttackRecord(
        level=level,
        attack=name,
        status="ran",
        scores={metric: values.tolist() for metric, values in scores.per_example.items()},
        matching=scores.matching.tolist(),
        ranks=found.ranks.tolist(),
        decoys=found.decoys,
        outcomes=[outcome(value) for value in psnr],
        tensors=f"{level}/{name}",
        **more,
    )


def specimen(*, count: int = 8, noise: float = 0.05, size: int = 25, channels: int = 1, **changes: Any) -> Audit:
    """An audit whose reconstructions are the faces with noise; the more of it, the less leaks."""
    generator = torch.Generator().manual_seed(0)
    domain = Images((channels, size, size))
    truth = Batch({"images": faces(count, size, channels), "labels": torch.zeros(count, dtype=torch.long)})
    amount = noise * torch.linspace(0.5, 3, count)[:, None, None, None]
    good = truth["images"] + amount * torch.randn(truth["images"].shape, generator=generator)
    bad = truth["images"] + 4 * amount * torch.randn(truth["images"].shape, generator=generator)
    order = torch.randperm(count, generator=generator)
    trace = [(i, 10.0 ** (1 - 7 * min(1, i / 900)) * (1 + 0.3 * (i % 7 == 0))) for i in range(0, 1201, 5)]
    attacks = [
        attack_record(
            domain, truth, bad, "dlg", 1, paper="zhu2019deep", exact=False, seconds=12.4, stopped="budget",
            objective=0.3, trace=[(i, 3.0 * 0.998**i) for i in range(0, 1000, 10)], labels="unused",
        ),
        attack_record(
            domain, truth, good[order], "gauss_newton", 1, paper="invertigo", exact=False,
            seconds=31.7, stopped="converged", objective=1e-6, trace=trace, labels="inferred", label_accuracy=1.0,
            notes=["4 restarts as one batch"],
        ),
        AttackRecord(
            level=1, attack="linear_layer", paper="phong2017privacy", exact=True, status="refused",
            reason="The first layer is a Conv2d; this attack reads a fully connected one.",
        ),
    ]  # fmt: skip
    guesses = domain.baselines(truth, Batch({"images": faces(200, size, channels)[100:]}))
    baselines = [
        BaselineRecord(
            name=name,
            label=domain.baseline_labels.get(name, name),
            scores={metric: values.tolist() for metric, values in scores.per_example.items()},
        )
        for name, scores in guesses.items()
    ]
    best = attacks[1]
    leaks = best.recovered > 0
    record = AuditRecord(
        title="Faces on a sigmoid LeNet",
        created="2026-11-20T10:15:00+00:00",
        version="0.1.0",
        command="invertigo audit demo --seed 0 --budget 60s",
        seed=0,
        seconds=46.2,
        budget_seconds=60.0,
        scenario={
            "title": "Faces on a sigmoid LeNet",
            "description": "A client trains one step on photographs of faces and sends its gradient.",
            "data": {"name": "faces", "split": "train", "count": count},
            "model": {"name": "lenet", "options": {"activation": "sigmoid"}},
            "local": {"mode": "train", "sends": "gradient", "learning_rate": 0.01, "batch_size": count},
            "dtype": "float64",
        },
        domain=domain.config(),
        num_examples=count,
        knowledge=[
            "The model, its weights before the step, and the loss.",
            "The client's gradient, in training mode.",
            "How many examples the client trained on.",
        ],
        metrics=[
            MetricRecord(
                name=m.name, label=m.label, privacy_loss=m.privacy_loss, unit=m.unit, description=m.description
            )
            for m in domain.metrics
        ],
        attacks=attacks,
        baselines=baselines,
        levels=[_level(level, best, count) for level in ThreatLevel],
        flags=[
            FlagRecord(
                code="did_not_converge",
                severity="warning",
                message="These attacks did not run to their end: dlg (rung 1). They may find more with more time.",
                remedy="Give a larger budget.",
            ),
            FlagRecord(
                code="few_examples",
                severity="info",
                message=f"{count} examples stand behind these numbers; under 30 they are indicative.",
                remedy="Audit more batches before comparing settings.",
            ),
        ],
        verdict=VerdictRecord(
            status="leaks",
            headline=f"Whoever sees one client's update rebuilt {best.recovered} of {count} images recognisably.",
            detail="The strongest attack was gauss_newton. An observer would pick out "
            f"{best.identified} of {count} among {best.decoys} others.",
            level=1,
            remedy="Aggregate securely over several clients, or train on larger batches.",
        )
        if leaks
        else VerdictRecord(
            status="resists",
            headline=f"No attack of this audit rebuilt any of the {count} images, up to rung 2.",
            detail="Every attack ran to its end. This holds for these attacks, this model state and these examples.",
            remedy="A stronger attack, a crafted model (rung 5) or a smaller batch can change this.",
        ),
        controls=[ControlRecord(name=name, status="passed", summary=f"{name} passed.") for name in CONTROLS],
        citations={paper.key: paper.bibtex() for paper in (INVERTIGO, DLG)},
        environment={"python": "3.11.2", "torch": "2.13.0", "platform": "Linux x86_64", "threads": "2"},
        private=False,
    )  # fmt: skip
    tensors = {"1/dlg/images": bad, "1/gauss_newton/images": good[order], "1/gauss_newton/labels": truth["labels"]}
    return Audit(record.model_copy(update=changes), tensors, truth, domain)


def _level(level: ThreatLevel, best: AttackRecord, count: int) -> LevelRecord:
    examined = level in (ThreatLevel.UPDATE, ThreatLevel.STATISTICS)
    found = examined and best.recovered > 0
    return LevelRecord(
        level=int(level),
        summary=level.summary,
        examined=examined,
        reason=UNEXAMINED.get(int(level), ""),
        strongest="gauss_newton" if examined else None,
        strongest_level=1 if examined else None,
        recovered=best.recovered if found else 0,
        recovered_interval=(0.4, 0.93) if found else None,
        identified=best.identified if examined else 0,
    )
