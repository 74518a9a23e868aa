"""Amortised inversion: a network that learns, on public data, to turn updates into images."""

from invertigo.attacks.amortised.attack import AmortisedInverter

__all__ = ["AmortisedInverter"]
