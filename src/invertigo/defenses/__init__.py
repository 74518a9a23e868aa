"""Defenses: what a client does to its batch, its gradients and its update, and what an adversary knows of it."""

from invertigo.defenses.registry import make, register, registry

__all__ = [
    "make",
    "register",
    "registry",
]
