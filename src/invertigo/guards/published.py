"""Papers that several guards follow."""

from __future__ import annotations

from invertigo.types import Paper

DETECTABILITY = Paper(
    "carletti2026detectability",
    "On the Detectability of Active Gradient Inversion Attacks in Federated Learning",
    "Carletti, Vincenzo and Foggia, Pasquale and Mazzocca, Carlo and Parrella, Giuseppe and Vento, Mario",
    2026,
    "IEEE Symposium on Security and Privacy",
    "2511.10502",
)
"""Its abstract names two families: improbable weight structure, and loss and gradient dynamics. The statistics, null
laws and thresholds of ours that follow these families are our reading of it, not the paper's formulas."""

SEER = Paper(
    "garov2024hiding",
    "Hiding in Plain Sight: Disguising Data Stealing Attacks in Federated Learning",
    "Garov, Kostadin and Dimitrov, Dimitar I. and Jovanović, Nikola and Vechev, Martin",
    2024,
    "International Conference on Learning Representations",
    "2306.03013",
)
