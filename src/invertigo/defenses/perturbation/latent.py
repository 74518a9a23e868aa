"""An image, moved in the latent space of an autoencoder: the one operation that all perturbations share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from invertigo.models.autoencoder import Autoencoder
from invertigo.models.building import Shape
from invertigo.types import MismatchError


class Head(nn.Module):
    r"""$P_\phi(z, \varepsilon)$: a direction in latent space, from where the image lies and from random numbers."""

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * latent, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, latent)
        )

    def forward(self, latents: Tensor, noise: Tensor) -> Tensor:
        """(batch, latent) of latents and noise, both (batch, latent)."""
        return self.layers(torch.cat([latents, noise], dim=1))


class LatentPerturbation(nn.Module):
    r"""$\tilde x = D(E(x) + \delta)$ with $\delta$ from a trained head, from noise, or zero.

    Latents are standardised, so `energy` is the size of a step in deviations of the data: with a head,
    $\delta = e \sqrt d\, P(z, \varepsilon) / \lVert P(z, \varepsilon) \rVert$; without one, $\delta = e\,\varepsilon$.
    Both have the same mean square $e^2$ in each coordinate, which makes the noise a control of equal energy.
    """

    def __init__(self, autoencoder: Autoencoder, head: Head | None = None) -> None:
        super().__init__()
        self.autoencoder, self.head = autoencoder, head

    @property
    def latent(self) -> int:
        """Number of latent coordinates."""
        return len(self.autoencoder.mean)

    def forward(self, pixels: Tensor, noise: Tensor, energy: float) -> Tensor:
        """Perturbed pixels (batch, channel, height, width) in (0, 1); `noise` is (batch, latent)."""
        latents = self.autoencoder.encode(pixels)
        return self.autoencoder.decode(latents + self.step(latents, noise, energy))

    def step(self, latents: Tensor, noise: Tensor, energy: float) -> Tensor:
        """The perturbation (batch, latent)."""
        if energy == 0:
            return torch.zeros_like(latents)
        if self.head is None:
            return energy * noise
        direction = self.head(latents, noise)
        length = direction.norm(dim=1, keepdim=True).clamp_min(torch.finfo(direction.dtype).tiny)
        return energy * self.latent**0.5 * direction / length

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, ready for safetensors."""
        return {name: tensor.detach().contiguous().clone() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], shape: Shape, like: Tensor) -> LatentPerturbation:
        """The perturbation with these weights, frozen, on the device and in the dtype of `like`.

        Sizes are read off the tensors. Raises: MismatchError when they do not belong to images of this shape.
        """
        try:
            width, latent = len(tensors["autoencoder.encoder.convolutions.0.weight"]), len(tensors["autoencoder.mean"])
            # On the meta device nothing is drawn and nothing allocated; the weights take the place of those declared.
            with torch.device("meta"):
                hidden = tensors.get("head.layers.0.weight")
                head = None if hidden is None else Head(latent, len(hidden))
                found = cls(Autoencoder(shape, latent, width), head)
            found.load_state_dict({k: t.to(like) for k, t in tensors.items()}, strict=True, assign=True)
        except (KeyError, RuntimeError) as error:
            raise MismatchError(
                f"The tensors of this perturbation do not fit images of shape {shape} ({str(error).splitlines()[0]}). "
                "They come from a perturbation that was trained on images of another shape, or from something else; "
                "train one on public images of this shape."
            ) from error
        return found.requires_grad_(False).eval()
