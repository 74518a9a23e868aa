"""Algebraic attacks: they solve for the data, or say that they cannot."""

from invertigo.attacks.exact.first_layer import FirstLinear, find_first_linear
from invertigo.attacks.exact.grain import Grain, GraphRecovery
from invertigo.attacks.exact.linear_layer import LinearLayer

__all__ = ["FirstLinear", "Grain", "GraphRecovery", "LinearLayer", "find_first_linear"]
