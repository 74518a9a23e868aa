"""Guards: what a client looks at before it loads a model, before it trains on it, and before it sends its update."""

from invertigo.guards.budget import Budget
from invertigo.guards.copying_kernels import CopyingKernels, TransmissionSNR
from invertigo.guards.d_snr import DSNR, Concentration
from invertigo.guards.duplicate_rows import DuplicateRows, OneDirection
from invertigo.guards.few_examples import FewExamples
from invertigo.guards.firing import FiringRates
from invertigo.guards.first_model import FirstModel
from invertigo.guards.head import HeadBias, HeadRows
from invertigo.guards.inspector import Inspector
from invertigo.guards.intake import Architecture, Broadcast, FiniteValues
from invertigo.guards.isolation import Isolation, Unlooked
from invertigo.guards.loss import LossJump, LossLevel, LossTail
from invertigo.guards.reading import read_model
from invertigo.guards.registry import make, register, registry
from invertigo.guards.row_tails import RowTails
from invertigo.guards.sign_balance import SignBalance
from invertigo.guards.standing import inspect_file
from invertigo.guards.update import UpdateJump

__all__ = [
    "DSNR",
    "Architecture",
    "Broadcast",
    "Budget",
    "Concentration",
    "CopyingKernels",
    "DuplicateRows",
    "FewExamples",
    "FiniteValues",
    "FiringRates",
    "FirstModel",
    "HeadBias",
    "HeadRows",
    "Inspector",
    "Isolation",
    "LossJump",
    "LossLevel",
    "LossTail",
    "OneDirection",
    "RowTails",
    "SignBalance",
    "TransmissionSNR",
    "Unlooked",
    "UpdateJump",
    "inspect_file",
    "make",
    "read_model",
    "register",
    "registry",
]
