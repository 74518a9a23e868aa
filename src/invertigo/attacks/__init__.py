"""Attacks: what an adversary rebuilds from an observation."""

from invertigo.attacks.active import Imprint, QuantileBias, TrapWeights
from invertigo.attacks.amortised import AmortisedInverter
from invertigo.attacks.auto import Auto
from invertigo.attacks.exact import Grain, GraphRecovery, LinearLayer, TokenSolve
from invertigo.attacks.generative import GenerativePrior
from invertigo.attacks.labels import LabelGuess, infer_labels
from invertigo.attacks.masked_layer import LowRankCompletion
from invertigo.attacks.matching.gauss_newton import GaussNewton
from invertigo.attacks.matching.graph_recipes import GraphDLG, GraphTAG
from invertigo.attacks.matching.recipes import DLG, IDLG, InvertingGradients, SeeThroughGradients
from invertigo.attacks.registry import make, reconstruct, register, registry

__all__ = [
    "DLG",
    "IDLG",
    "AmortisedInverter",
    "Auto",
    "GaussNewton",
    "GenerativePrior",
    "Grain",
    "GraphDLG",
    "GraphRecovery",
    "GraphTAG",
    "Imprint",
    "InvertingGradients",
    "LabelGuess",
    "LinearLayer",
    "LowRankCompletion",
    "QuantileBias",
    "SeeThroughGradients",
    "TokenSolve",
    "TrapWeights",
    "infer_labels",
    "make",
    "reconstruct",
    "register",
    "registry",
]
