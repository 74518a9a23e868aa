"""Attacks of a malicious server: what it plants in the model, and how it reads the update back."""

from invertigo.attacks.active.class_means import ClassMeans
from invertigo.attacks.active.fishing import ClassFishing, FeatureFishing
from invertigo.attacks.active.geminio import Geminio
from invertigo.attacks.active.imprint import Imprint
from invertigo.attacks.active.isolation import QuantileBias, TrapWeights
from invertigo.attacks.active.loki import Loki
from invertigo.attacks.active.scale_mia import ScaleMIA
from invertigo.attacks.active.seer import Seer
from invertigo.attacks.active.soliton import SolitonData, SolitonFree

__all__ = [
    "ClassFishing",
    "ClassMeans",
    "FeatureFishing",
    "Geminio",
    "Imprint",
    "Loki",
    "QuantileBias",
    "ScaleMIA",
    "Seer",
    "SolitonData",
    "SolitonFree",
    "TrapWeights",
]
