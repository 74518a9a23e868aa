"""Perturbation in the latent space of an autoencoder: learned against an attacker, or plain noise, or none."""

from invertigo.defenses.perturbation.autoencoder_only import AutoencoderOnly
from invertigo.defenses.perturbation.latent_noise import LatentNoise
from invertigo.defenses.perturbation.learnable import LearnablePerturbation

__all__ = ["AutoencoderOnly", "LatentNoise", "LearnablePerturbation"]
