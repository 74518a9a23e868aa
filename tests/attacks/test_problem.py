"""The simulated client against PyTorch's own training, batched and one at a time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.attacks.matching.objectives import Cosine, SquaredL2
from invertigo.attacks.matching.priors import BatchNormStatistics, TotalVariation
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.matching.space import SOFT_LABELS, Field, Space
from invertigo.domains import Images
from invertigo.federation import train_locally
from invertigo.federation.functional import functional_update, simulating
from invertigo.types import Batch, Knowledge, LocalTraining, Observation, Task, buffers_of, trainable

SHAPE = (2, 6, 6)


def network(norm: bool = True) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.GELU()]
        return nn.Sequential(*layers, nn.Dropout(0.0), nn.Flatten(), nn.Linear(16, 3)).double()


def observed(local: LocalTraining, norm: bool = True, examples: int = 4) -> tuple[Observation, Batch]:
    gen = torch.Generator().manual_seed(1)
    batch = Batch(
        {
            "images": torch.rand(examples, *SHAPE, generator=gen, dtype=torch.float64),
            "labels": torch.arange(examples) % 3,
        }
    )
    model = network(norm)
    task = Task(model, F.cross_entropy, Images(SHAPE), num_classes=3)
    update = train_locally(task, batch, local)
    return Observation(
        task, trainable(model), buffers_of(model), update, local, Knowledge(num_examples=examples)
    ), batch


def problem(local: LocalTraining, **options: object) -> tuple[Problem, Batch]:
    observation, batch = observed(local)
    space = Space({"images": Field((4, *SHAPE), torch.zeros(1), torch.ones(1))})
    return Problem(observation, space, SquaredL2(), labels=batch["labels"], num_examples=4, **options), batch


LOCALS = [
    LocalTraining(mode="train"),
    LocalTraining(mode="eval"),
    LocalTraining(mode="train", sends="difference", epochs=2, batch_size=2, learning_rate=0.1, momentum=0.9),
    LocalTraining(mode="eval", sends="difference", epochs=3, batch_size=4, learning_rate=0.05),
    LocalTraining(mode="eval", sends="difference", epochs=1, batch_size=3, learning_rate=0.05),
]


@pytest.mark.parametrize("local", LOCALS, ids=str)
@pytest.mark.parametrize("transformable", [True, False])
def test_simulation_reproduces_the_client(local: LocalTraining, transformable: bool) -> None:
    observation, batch = observed(local)
    simulate = functional_update(
        observation.task, observation.parameters, observation.buffers, local, 4, transformable=transformable
    )
    with simulating(observation.task.model, local.mode):
        update = simulate(dict(batch.fields)).update
    for name, tensor in observation.update.tensors.items():
        torch.testing.assert_close(update[name].detach(), tensor)


@pytest.mark.parametrize("local", LOCALS, ids=str)
def test_restarts_as_one_batch_equal_restarts_one_by_one(local: LocalTraining) -> None:
    matching, _ = problem(local, priors=(TotalVariation(0.1),))
    x = torch.rand(3, matching.space.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with simulating(matching.observation.task.model, local.mode):
        value, gradient = matching.value_and_gradient(x)
        for r in range(3):
            one_value, one_gradient = matching.value_and_gradient(x[r : r + 1])
            torch.testing.assert_close(value[r : r + 1], one_value)
            torch.testing.assert_close(gradient[r : r + 1], one_gradient)
        torch.testing.assert_close(matching.value(x), value)


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval(), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([4, 2, 2]),
     nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)],
    ids=["batch", "batch-eval", "instance", "layer", "group", "batch-untracked"],
)  # fmt: skip
def test_batched_second_derivatives_of_norms_are_right(norm: nn.Module) -> None:
    """PyTorch's own are silently wrong under vmap; see `federation.norms`."""
    matching, _ = problem(LocalTraining(mode="train" if norm.training else "eval"))
    model = matching.observation.task.model
    model[1] = norm.double()
    matching = Problem(
        Observation.from_gradients(
            model, F.cross_entropy, [torch.randn_like(p) for p in model.parameters()], domain=Images(SHAPE)
        ),
        matching.space, SquaredL2(), labels=matching.labels, num_examples=4,
    )  # fmt: skip
    x = torch.rand(2, matching.space.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with simulating(model, "train" if norm.training else "eval"):
        torch.testing.assert_close(matching.value_and_gradient(x)[1][:1], matching.value_and_gradient(x[:1])[1])


def test_the_gradient_is_the_derivative_of_the_value() -> None:
    matching, _ = problem(LocalTraining(mode="train"), priors=(TotalVariation(0.1, isotropic=True),))
    x = torch.rand(1, matching.space.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with simulating(matching.observation.task.model, "train"):
        _, gradient = matching.value_and_gradient(x)
        step = 1e-5
        slope = (matching.value(x + step * direction) - matching.value(x - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_the_truth_has_no_residual() -> None:
    matching, batch = problem(LocalTraining(mode="train"))
    with simulating(matching.observation.task.model, "train"):
        value = matching.value(matching.space.pack({"images": batch["images"][None]}))
    assert value.item() < 1e-25


@pytest.mark.parametrize("restarts", [1, 3])
def test_batch_statistics_reach_the_prior(restarts: int) -> None:
    observation, batch = observed(LocalTraining(mode="train"))
    seen = observation.task.model[0](batch["images"])
    statistics = {"1": (seen.mean((0, 2, 3)), seen.var((0, 2, 3), unbiased=False))}
    known = Knowledge(num_examples=4, labels=batch["labels"], batch_statistics=statistics)
    observation = Observation(
        observation.task, observation.parameters, observation.buffers, observation.update, observation.local, known
    )
    space = Space({"images": Field((4, *SHAPE))})
    prior = BatchNormStatistics(1.0)
    matching = Problem(observation, space, Cosine(), (prior,), batch["labels"], num_examples=4)
    truth = space.pack({"images": batch["images"][None].expand(restarts, -1, -1, -1, -1)})
    other = torch.rand(truth.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with simulating(observation.task.model, "train"):
        for flat, near in ((truth, True), (other, False)):
            _, seen = matching.simulate(flat)
            penalty = matching.penalty(flat, seen)
            assert penalty is not None
            assert bool((penalty < 1e-6).all()) is near


def test_soft_labels_are_optimised_with_the_images() -> None:
    observation, batch = observed(LocalTraining(mode="eval"))
    space = Space({"images": Field((4, *SHAPE)), SOFT_LABELS: Field((4, 3))})
    matching = Problem(observation, space, SquaredL2(), num_examples=4)
    logits = 40.0 * F.one_hot(batch["labels"], 3).double()
    flat = space.pack({"images": batch["images"][None], SOFT_LABELS: logits[None]})
    with simulating(observation.task.model, "eval"):
        assert matching.value(flat).item() < 1e-25
        _, gradient = matching.value_and_gradient(torch.randn_like(flat))
    assert space.unpack(gradient)[SOFT_LABELS].abs().max() > 0


def test_simulating_leaves_no_trace() -> None:
    matching, _ = problem(LocalTraining(mode="train"))
    model = matching.observation.task.model
    model[3].p = 0.5
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    x = torch.rand(2, matching.space.size, dtype=torch.float64)
    with simulating(model, "train"):
        assert not model[3].training, "dropout is simulated as its expectation"
        matching.value_and_gradient(x)
    assert [m.training for m in model.modules()] == modes
    assert not model[1]._forward_pre_hooks
    assert model[1].track_running_stats
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_pack_and_unpack_are_inverse() -> None:
    space = Space({"images": Field((2, 1, 3, 3), torch.zeros(1), torch.ones(1)), SOFT_LABELS: Field((2, 5))})
    flat = torch.arange(3 * space.size, dtype=torch.float64).reshape(3, -1)
    named = space.unpack(flat)
    assert {k: v.shape for k, v in named.items()} == {"images": (3, 2, 1, 3, 3), SOFT_LABELS: (3, 2, 5)}
    assert torch.equal(space.pack(named), flat)
    low, high = space.bounds(flat)
    assert low[:18].eq(0).all()
    assert high[:18].eq(1).all()
    assert low[18:].isinf().all()


class Attention(nn.Module):
    """Uses the fused attention call, whose kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x.flatten(2).mean(1).reshape(x.shape[0], 6, 6))
        return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1))


def test_fused_attention_is_differentiated_twice() -> None:
    model = Attention()
    task = Task(model, F.cross_entropy, Images(SHAPE), num_classes=3)
    batch = Batch({"images": torch.rand(2, *SHAPE), "labels": torch.tensor([0, 2])})
    update = train_locally(task, batch, LocalTraining())
    observation = Observation(task, trainable(model), {}, update, LocalTraining(), Knowledge(num_examples=2))
    matching = Problem(
        observation, Space({"images": Field((2, *SHAPE))}), Cosine(), labels=batch["labels"], num_examples=2
    )
    with simulating(model, "train"):
        _, gradient = matching.value_and_gradient(torch.rand(1, matching.space.size))
    assert gradient.abs().max() > 0
