"""Algebraic attacks: they solve for the data, or say that they cannot."""

from invertigo.attacks.exact.first_layer import FirstLinear, find_first_linear
from invertigo.attacks.exact.grain import Grain, GraphRecovery
from invertigo.attacks.exact.linear_layer import LinearLayer
from invertigo.attacks.exact.token_solve import TokenSolve

__all__ = ["FirstLinear", "Grain", "GraphRecovery", "LinearLayer", "TokenSolve", "find_first_linear"]
