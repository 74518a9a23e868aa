"""The game that trains a perturbation: a head that hides, a client that must still learn, an attacker that inverts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.attacks.amortised.inverter import Inverter, new_inverter
from invertigo.attacks.amortised.sketch import Sketch
from invertigo.defenses.perturbation.latent import Head, LatentPerturbation
from invertigo.defenses.perturbation.release import draw_noise
from invertigo.domains import Images
from invertigo.federation.functional import functional_update, simulating
from invertigo.models import build
from invertigo.models.autoencoder import Autoencoder
from invertigo.models.building import weights_drawn_by
from invertigo.models.checkpoint import restored, saved
from invertigo.models.descent import shuffled
from invertigo.models.fitting import fit_classifier
from invertigo.types import Batch, ConfigurationError, LocalTraining, Task, buffers_of, trainable

SIMULATED = LocalTraining(mode="eval")
"""The attacker of the game reads the gradient of one image at a time, in inference mode: its easiest case."""


@dataclass(frozen=True, kw_only=True)
class Game:
    """How the game is played. Weights are relative to the client's cross-entropy.

    `privacy` weighs the attacker's error (in units of the images' variance, hinged at 1: no better than the mean image)
    and `confusion` how far its pictures are from telling a classifier nothing. The attacker takes `attacker_steps` for
    each step of the client and the head.
    """

    energy: float = 1.0
    privacy: float = 1.0
    confusion: float = 0.1
    epochs: int = 10
    attacker_steps: int = 2
    batch_size: int = 32
    hidden: int = 128
    sketch: int = 512
    judge_epochs: int = 5
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Round:
    """Where the game stands after an epoch: mean losses, the attacker's error over the images' variance among them."""

    epoch: int
    epochs: int
    client: float
    attacker: float
    confusion: float


Watch = Callable[[Round], bool | None]
"""Called after each epoch; returning True ends the game there."""


def play(
    task: Task,
    public: Batch,
    autoencoder: Autoencoder,
    game: Game,
    *,
    generator: torch.Generator,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> LatentPerturbation:
    r"""Train a head against a simulated attacker, in alternation, with the autoencoder left as it is.

    The attacker: $\min_\psi \lVert x - A_\psi(S\nabla_\theta \ell(f_\theta(\tilde x), y)) \rVert^2 / v
    + b\,\mathrm{CE}(h(\hat x), y)$. The client and the head:
    $\min_{\theta, \phi} \mathrm{CE}(f_\theta(\tilde x), y) + a \max(0, 1 - \lVert x - \hat x\rVert^2 / v)
    + b\,\mathrm{KL}(u \,\Vert\, h(\hat x))$, with $v$ the images' variance, $h$ a classifier of clean images, $u$
    uniform.

    With a `checkpoint` file, each epoch is written to it, and a game that was interrupted goes on where it stood, to
    the same bits. `generator` draws everything.
    """
    players = Players.seated(task, public, autoencoder, game, generator)
    done = restored(checkpoint, players.parts(), players.optimisers, generator) if checkpoint is not None else 0
    for epoch in range(done, game.epochs):
        standing = players.epoch(epoch, generator)
        if checkpoint is not None:
            saved(checkpoint, players.parts(), players.optimisers, generator, epoch + 1)
        if watch is not None and watch(standing):
            break
    return players.perturbation.requires_grad_(False).eval()


@dataclass
class Players:
    """All networks of the game with their optimisers, and the public examples that it is played on."""

    task: Task
    domain: Images
    game: Game
    pixels: Tensor
    labels: Tensor
    perturbation: LatentPerturbation
    client: nn.Module
    judge: nn.Module
    sketch: Sketch
    attacker: Inverter
    variance: float
    optimisers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)

    @classmethod
    def seated(
        cls, task: Task, public: Batch, autoencoder: Autoencoder, game: Game, generator: torch.Generator
    ) -> Players:
        """The players at their starting weights; the judge is trained on clean images and stays as it is."""
        if not isinstance(task.domain, Images) or task.num_classes is None:
            raise ConfigurationError("The game needs a task on images with a known number of classes.")
        like = next(task.model.parameters())
        pixels = task.domain.to_unit(public[task.domain.inputs].to(like))
        labels = public[task.domain.target].to(like.device)
        with weights_drawn_by(generator):
            head = Head(len(autoencoder.mean), game.hidden).to(like)
        judge = build(
            "lenet", input_shape=task.domain.shape, num_classes=task.num_classes, generator=generator, activation="relu"
        ).to(like)  # fmt: skip
        fit_classifier(judge, pixels, labels, epochs=game.judge_epochs, generator=generator)
        sketch = Sketch.draw(trainable(task.model), game.sketch, generator)
        blank = pixels.new_zeros(2, game.sketch)
        players = cls(
            task, task.domain, game, pixels, labels, LatentPerturbation(copy.deepcopy(autoencoder), head),
            copy.deepcopy(task.model), judge, sketch,
            new_inverter(task.domain.shape, 1, blank, generator=generator, hidden=2 * game.hidden),
            float(pixels.var(0).mean().clamp_min(1e-6)),
        )  # fmt: skip
        players.optimisers = {
            "attacker": torch.optim.Adam(players.attacker.parameters(), game.learning_rate),
            "defender": torch.optim.Adam([*head.parameters(), *players._trained()], game.learning_rate),
        }
        return players

    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds. The autoencoder and the judge are the same whenever the game is begun anew."""
        assert self.perturbation.head is not None
        return {"head": self.perturbation.head, "client": self.client, "attacker": self.attacker}

    def epoch(self, number: int, generator: torch.Generator) -> Round:
        """One pass over the public examples."""
        parts = shuffled(len(self.pixels), self.game.batch_size, generator)
        self._calibrate(parts[0], generator)
        sums = torch.zeros(3, dtype=torch.float64)
        for part in parts:
            for _ in range(self.game.attacker_steps):
                drawn = torch.randint(len(self.pixels), (len(part),), generator=generator, device=generator.device)
                self._attack(drawn, generator)
            sums += self._defend(part, generator)
        client, attacker, confusion = (sums / len(parts)).tolist()
        return Round(number + 1, self.game.epochs, client, attacker, confusion)

    def _attack(self, part: Tensor, generator: torch.Generator) -> None:
        """One step of the attacker against the head as it is."""
        pixels, labels = self._examples(part)
        with torch.no_grad():
            sketches = self._sketches(self._perturb(pixels, generator), labels)
        with torch.enable_grad():
            rebuilt = self.attacker(sketches)[:, 0]
            error = F.mse_loss(rebuilt, pixels) / self.variance
            self._step("attacker", error + self.game.confusion * F.cross_entropy(self.judge(rebuilt), labels))

    def _defend(self, part: Tensor, generator: torch.Generator) -> Tensor:
        """One step of the client and the head against the attacker as it is; the three losses."""
        pixels, labels = self._examples(part)
        with torch.enable_grad():
            changed = self._perturb(pixels, generator)
            rebuilt = self.attacker(self._sketches(changed, labels))[:, 0]
            error = (rebuilt - pixels).square().flatten(1).mean(1) / self.variance
            hidden = F.relu(1 - error).mean()
            confusion = -F.log_softmax(self.judge(rebuilt), dim=1).mean()
            self.client.train(len(part) > 1)
            learnt = self.task.loss(self.client(self.domain.from_unit(changed)), labels)
            self._step("defender", learnt + self.game.privacy * hidden + self.game.confusion * confusion)
        return torch.tensor([learnt.item(), error.mean().item(), confusion.item()], dtype=torch.float64)

    def _step(self, who: str, loss: Tensor) -> None:
        optimiser = self.optimisers[who]
        optimiser.zero_grad()
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        # Only to this player's own weights: the opponent's are left without a gradient.
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
            parameter.grad = slope
        optimiser.step()

    def _perturb(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        noise = draw_noise(len(pixels), self.perturbation.latent, pixels, generator)
        return self.perturbation(pixels, noise, self.game.energy)

    def _sketches(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Sketches (image, size) of the gradient that each perturbed image alone would cause."""
        task = Task(self.client, self.task.loss, self.domain, self.task.num_classes, self.task.step_loss)
        gradient = functional_update(task, trainable(self.client), buffers_of(self.client), SIMULATED, 1)

        def one(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return gradient({name: tensor[None] for name, tensor in fields.items()}).update

        fields = {self.domain.inputs: self.domain.from_unit(pixels), self.domain.target: labels}
        with simulating(self.client, SIMULATED.mode):
            return self.sketch(torch.func.vmap(one, randomness="different")(fields))

    def _calibrate(self, part: Tensor, generator: torch.Generator) -> None:
        """Gradients shrink as the client learns; the attacker's input scale follows."""
        pixels, labels = self._examples(part)
        with torch.no_grad():
            self.attacker.calibrate(self._sketches(self._perturb(pixels, generator), labels))

    def _examples(self, part: Tensor) -> tuple[Tensor, Tensor]:
        part = part.to(self.pixels.device)
        return self.pixels[part], self.labels[part]

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.client.parameters() if p.requires_grad]
