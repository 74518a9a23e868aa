"""Defenses: what a client does to its batch, its gradients and its update, and what an adversary knows of it."""

from invertigo.defenses.ats import ATS
from invertigo.defenses.censor import Censor
from invertigo.defenses.clip import Clip
from invertigo.defenses.dp_sgd import DPSGD
from invertigo.defenses.dual_pruning import DualPruning
from invertigo.defenses.gaussian_noise import GaussianNoise
from invertigo.defenses.grad_defense import GradDefense
from invertigo.defenses.instahide import InstaHide
from invertigo.defenses.laplace_noise import LaplaceNoise
from invertigo.defenses.mixup import MixUp
from invertigo.defenses.outpost import Outpost
from invertigo.defenses.per_example_clip import PerExampleClip
from invertigo.defenses.percentile_pruning import PercentilePruning
from invertigo.defenses.perturbation import AutoencoderOnly, LatentNoise, LearnablePerturbation
from invertigo.defenses.precode import Precode
from invertigo.defenses.qsgd import QSGD
from invertigo.defenses.quantise import Quantise
from invertigo.defenses.registry import make, register, registry
from invertigo.defenses.sign import Sign
from invertigo.defenses.soteria import Soteria
from invertigo.defenses.top_k import TopK
from invertigo.defenses.user_dp import UserDP

__all__ = [
    "ATS",
    "DPSGD",
    "QSGD",
    "AutoencoderOnly",
    "Censor",
    "Clip",
    "DualPruning",
    "GaussianNoise",
    "GradDefense",
    "InstaHide",
    "LaplaceNoise",
    "LatentNoise",
    "LearnablePerturbation",
    "MixUp",
    "Outpost",
    "PerExampleClip",
    "PercentilePruning",
    "Precode",
    "Quantise",
    "Sign",
    "Soteria",
    "TopK",
    "UserDP",
    "make",
    "register",
    "registry",
]
