"""Gradient matching inside what a decoder, trained on public images, can draw."""

from invertigo.attacks.generative.attack import GenerativePrior

__all__ = ["GenerativePrior"]
