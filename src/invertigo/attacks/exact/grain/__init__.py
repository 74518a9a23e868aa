"""GRAIN: graphs from the gradients of graph networks, exactly."""

from invertigo.attacks.exact.grain.attack import Grain
from invertigo.attacks.exact.grain.recovery import GraphRecovery

__all__ = ["Grain", "GraphRecovery"]
