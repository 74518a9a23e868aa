"""SEER: a model and a secret reader, trained together so that a batch's gradient speaks of one example of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.attacks.active.seer_bait import Bait, brightness
from invertigo.attacks.active.seer_reader import new_reader, rebuilt_reader
from invertigo.attacks.active.seer_training import Recipe, fit, weighted_gradients, weightings
from invertigo.attacks.active.seer_trial import trial
from invertigo.attacks.matching.pace import Pace
from invertigo.attacks.registry import register
from invertigo.domains import Images
from invertigo.federation.functional import batchnorm_statistics, simulating
from invertigo.models import memory
from invertigo.types import (
    Batch,
    InvalidValueError,
    LocalTraining,
    Observation,
    Paper,
    Plant,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    Task,
    check_requirements,
    duplicate,
)

HELD_OUT, AVERAGED = 0.2, 16
"""Share of the public data that the reader is tried on, and batches over which BatchNorm's statistics are averaged."""


@register
@dataclass(frozen=True, kw_only=True)
class Seer:
    r"""Train the model so that a secret reader draws the brightest image of a batch out of the summed gradient.

    The reader $R$ takes random coordinates of the gradient to a few numbers by a linear map, and draws an image from
    them. With $g_+$ the gradient of the example to be singled out and $g_-$ that of random mixtures of the others,

    $$\min_{\theta, R} \frac{\alpha}{1+\alpha} \lVert R(g_-) - R(0) \rVert^2
    + \frac{1}{1+\alpha} \lVert R(g_+) - x_+ \rVert^2 + w \lVert R(g) - x_+ \rVert^2$$

    where $\alpha$ grows from 1/4 to the number of examples. No weight gets an odd structure. BatchNorm in training mode
    lets an example's gradient depend on the others, so that the brightest of any batch can be meant (`batch`); without
    it, or in a sum over clients, examples beyond a brightness are meant that one of the crowd has on average
    (`threshold`): just one has it in at most 37 % of the rounds.

    Args:
        prefer: `bright` or `dark`, the mean of the pixels.
        among: `batch`, `threshold`, or `auto`.
        steps: of Adam, with `batches` batches each. seconds: allowance for them.
        model_rate: Adam's for the model. reader_rate: for the reader.
        coordinates: at most so many of each tensor. latent: width of the reader.
        whole: $w$, for drawing $x_+$ out of the whole gradient; 0 as in the paper.
        task_weight: of the task's loss, which a client may watch; 0 as in the paper.
        checkpoint: safetensors file from which training goes on, and which it writes.

    Source: Garov et al. 2024, who train for days. The third term, the task's, and clipped steps over several batches
    are ours.
    """

    name: ClassVar[str] = "seer"
    paper: ClassVar[Paper] = Paper(
        "garov2024hiding",
        "Hiding in Plain Sight: Disguising Data Stealing Attacks in Federated Learning",
        "Garov, Kostadin and Dimitrov, Dimitar I. and Jovanovi\\'c, Nikola and Vechev, Martin",
        2024,
        "International Conference on Learning Representations",
        "2306.03013",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset(
        {Requirement.CRAFTED_MODEL, Requirement.BATCH_SIZE, Requirement.PUBLIC_DATA, Requirement.SINGLE_GRADIENT}
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    prefer: Literal["bright", "dark"] = "bright"
    among: Literal["auto", "batch", "threshold"] = "auto"
    steps: int = 1000
    batches: int = 16
    seconds: float | None = None
    model_rate: float = 1e-2
    reader_rate: float = 2e-3
    coordinates: int = 1024
    latent: int = 128
    whole: float = 1.0
    task_weight: float = 0.0
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batches", "coordinates", "latent"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must be a positive whole number.")

    def plant(
        self,
        task: Task,
        local: LocalTraining,
        *,
        public: Batch | None,
        num_examples: int,
        clients: int,
        generator: torch.Generator,
        progress: Progress | None = None,
    ) -> Plant:
        """See `types.ActiveAttack`; `progress` hears of the training."""
        if public is None or task.domain.target not in public.fields or not isinstance(task.domain, Images):
            raise RequirementError("SEER trains on labelled public images; give data.public_count above 0.")
        if local.sends != "gradient":
            raise RequirementError("SEER's reader is trained on one gradient; after local steps it reads nothing.")
        if num_examples * clients < 2:
            raise RequirementError("One example alone need not be singled out; every other attack reads its gradient.")
        public = Batch({name: public[name] for name in (task.domain.inputs, task.domain.target)})
        alone = self._alone(task, local, clients)

        def make() -> Plant:
            return self._trained(task, local.mode, public, num_examples, clients, alone, generator, progress)

        if self.checkpoint is not None or self.seconds is not None or progress is not None:
            return make()  # it may end early, and what a file holds need not be remembered
        own = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
        settings = f"{self} {local.mode} {num_examples} {clients} {task.model} {task.loss} {list(own)}"
        return memory.once(make, settings, own.values(), public.fields, generator)

    def _alone(self, task: Task, local: LocalTraining, clients: int) -> bool:
        """The example is meant that stands out in its own batch. Raises: RequirementError when that cannot be."""
        coupled = local.mode == "train" and any(isinstance(m, _BatchNorm) for m in task.model.modules())
        if self.among == "batch" and not (coupled and clients == 1):
            raise RequirementError(
                "among='batch' singles out the example that has most of a property in its batch: that needs BatchNorm "
                "in training mode, without which a gradient does not know of the other examples, and one client, since "
                "each would have such an example. Use among='threshold'."
            )
        return self.among == "batch" or (self.among == "auto" and coupled and clients == 1)

    def _trained(
        self,
        task: Task,
        mode: str,
        public: Batch,
        size: int,
        clients: int,
        alone: bool,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> Plant:
        model = duplicate(task.model)
        crafted = replace(task, model=model)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        like = next(iter(parameters.values()))
        learn, held_out = self._baits(crafted, public, like, size, clients, alone)
        with simulating(model, mode), torch.enable_grad():
            first = learn.draw(8, generator)
            seen = weighted_gradients(crafted)(
                parameters, first.images, first.labels, weightings(first, generator)[:, :1]
            )
            reader = new_reader(
                learn.domain.shape, {name: tensor.detach() for name, tensor in seen.items()}, (size, clients),
                coordinates=self.coordinates, latent=self.latent, generator=generator,
            )  # fmt: skip
            recipe = Recipe(self.batches, self.model_rate, self.reader_rate, self.whole, self.task_weight)
            kept = None if self.checkpoint is None else Path(self.checkpoint)
            pace = Pace(self.steps, progress, self.seconds)
            fit(crafted, reader, learn, recipe, pace=pace, checkpoint=kept, generator=generator)
        state = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        notes = () if held_out is None else (trial(crafted, state, reader, held_out, mode, generator).sentence(),)
        if mode == "train":
            state |= _statistics(crafted, learn, generator)
        return Plant(
            self.name, state, memo={n: t.detach().clone() for n, t in reader.state_dict().items()}, notes=notes
        )

    def _baits(
        self, task: Task, public: Batch, like: Tensor, size: int, clients: int, alone: bool
    ) -> tuple[Bait, Bait | None]:
        """What is learnt from, and what is held out, where there is enough of it for a batch."""
        domain = task.domain
        assert isinstance(domain, Images)
        images, labels = public[task.domain.inputs].to(like), public[task.domain.target].to(like.device)
        score = brightness(domain, images) * (1 if self.prefer == "bright" else -1)
        threshold = math.inf if alone else float(score.quantile(1 - 1 / (size * clients)))
        kept = len(images) - round(HELD_OUT * len(images))

        def bait(part: slice) -> Bait | None:
            found = Bait(domain, images[part], labels[part], score[part], size, clients, threshold)
            return found if found.enough else None

        learn, held_out = bait(slice(0, kept)), bait(slice(kept, None))
        if learn is None:
            raise RequirementError(
                f"{len(images)} public images are too few to make up batches of {size} with one image to single out; "
                "give more, see data.public_count."
            )
        return learn, held_out

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        plant, domain = observation.knowledge.plant, observation.task.domain
        assert plant is not None
        assert isinstance(domain, Images)
        assert observation.num_examples is not None
        reader = rebuilt_reader(domain.shape, plant.memo)
        like = reader.scale
        with torch.no_grad():
            sent = {n: t[None].to(like) for n, t in observation.update.tensors.items() if n in observation.parameters}
            image = reader(observation.num_examples * reader.select(sent)).clamp(0, 1)
        size, clients = reader.crowd.tolist()
        note = f"One image is drawn; the reader was trained for {size} examples of each of {clients} clients."
        return Reconstruction(
            fields={domain.inputs: domain.from_unit(image)},
            attack=self.name,
            objective=0.0,
            stopped="schedule",
            seconds=time.perf_counter() - started,
            notes=(note, *plant.notes),
        )


@torch.no_grad()
def _statistics(task: Task, bait: Bait, generator: torch.Generator) -> dict[str, Tensor]:
    """Running statistics of public batches, such as an honest server would send along."""
    own, sums = dict(task.model.named_buffers()), {}
    with simulating(task.model, "train"), batchnorm_statistics(task.model) as seen:
        for images in bait.draw(AVERAGED, generator).images:
            task.model(images)
            for name, (mean, variance) in seen.items():
                unbiased = variance * bait.size / max(bait.size - 1, 1)
                for kind, value in (("mean", mean), ("var", unbiased)):
                    sums.setdefault(f"{name}.running_{kind}", []).append(value)
    return {name: torch.stack(values).mean(0) for name, values in sums.items() if name in own}
