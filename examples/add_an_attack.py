"""An attack of your own: a frozen dataclass with one method, registered under its name, held to the common contract.

    python examples/add_an_attack.py

In a package of your own, let pip announce it instead of importing it by hand:

    [project.entry-points."invertigo.attacks"]
    loudest_neuron = "my_package:LoudestNeuron"
"""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import invertigo
from invertigo import data
from invertigo.attacks import registry
from invertigo.testing import check_attack
from invertigo.types import Paper, Progress, Requirement, RequirementError, check_requirements


@registry.register("loudest_neuron")
@dataclass(frozen=True, kw_only=True)
class LoudestNeuron:
    """Read one input off the first fully connected layer, at the neuron with the largest bias gradient.

    For one example, a neuron's weight gradient is its bias gradient times the input, so their ratio is the input.
    `sharpen` multiplies the contrast of the result around the middle of the range.
    """

    sharpen: float = 1.0

    name: ClassVar[str] = "loudest_neuron"
    paper: ClassVar[Paper] = Paper(
        key="phong2018privacy",
        title="Privacy-Preserving Deep Learning via Additively Homomorphic Encryption",
        authors="Phong, Le Trieu and Aono, Yoshinori and Hayashi, Takuya and Wang, Lihua and Moriai, Shiho",
        year=2018,
        venue="IEEE Transactions on Information Forensics and Security",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.SINGLE_GRADIENT})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    def reconstruct(
        self,
        observation: invertigo.Observation,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> invertigo.Reconstruction:
        """See `invertigo.types.Attack`."""
        start = time.perf_counter()
        check_requirements(self, observation)
        domain, update = observation.task.domain, observation.update.tensors
        shape = domain.example_shapes()[domain.inputs]
        weight, bias = first_layer(observation.task.model, shape)
        neuron = update[bias].abs().argmax()
        image = (update[weight][neuron] / update[bias][neuron]).reshape(1, *shape)
        low, high = (end.to(image) for end in domain.bounds(domain.inputs))
        middle = (low + high) / 2
        return invertigo.Reconstruction(
            fields={domain.inputs: (middle + self.sharpen * (image - middle)).clamp(low, high)},
            attack=self.name,
            objective=0.0,
            stopped="exact",
            seconds=time.perf_counter() - start,
        )


def first_layer(model: nn.Module, shape: tuple[int, ...]) -> tuple[str, str]:
    """Names of the weight and the bias of a first layer that reads the whole input."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            if module.in_features == torch.Size(shape).numel():
                return f"{name}.weight", f"{name}.bias"
            break
        if isinstance(module, nn.Conv2d):
            break
    raise RequirementError("The model does not begin with a fully connected layer with a bias; try 'gauss_newton'.")


def main() -> None:
    check_attack(LoudestNeuron)  # the contract: metadata, determinism, state restored, refusals, an easy case, ...

    faces = data.load("faces", limit=1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(625, 64), nn.ReLU(), nn.Linear(64, 2))
    gradient = torch.autograd.grad(cross_entropy(model(faces.images), faces.labels), list(model.parameters()))
    observation = invertigo.Observation.from_gradients(
        model, cross_entropy, gradient, domain=invertigo.Images(shape=faces.shape)
    )
    rebuilt = invertigo.reconstruct(observation, "loudest_neuron", sharpen=1.0)
    print(invertigo.evaluate(rebuilt, faces.batch(0)).summary())


if __name__ == "__main__":
    main()
