"""The contract of a defense, one small check each."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from invertigo.domains import Images
from invertigo.domains import registry as domains
from invertigo.federation import observe_round
from invertigo.federation.client import Trained, train
from invertigo.testing import state
from invertigo.testing.cases import CLASSES, SIDE, pictures
from invertigo.testing.contract import ContractError, demand
from invertigo.types import ANY_DOMAIN, AdversaryView, Batch, Defense, LocalTraining, Observation, Paper, Task

FACTS = {"name": str, "paper": Paper, "domains": frozenset, "strength": str, "strengths": tuple}
PRIVATE = 4
"""Examples of the client in the ready case."""


@dataclass(frozen=True)
class Client:
    """A client whose training is to be defended: the task, its private batch, and public examples of the same kind."""

    task: Task
    batch: Batch
    public: Batch
    local: LocalTraining = dataclasses.field(default_factory=LocalTraining)


def easy_client(dtype: torch.dtype = torch.float64) -> Client:
    """Four pictures and a small convolutional network with two linear layers; no normalisation, no dropout."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(),
        nn.Linear(4 * (SIDE // 2) ** 2, 16), nn.LeakyReLU(0.2), nn.Linear(16, CLASSES),
    ).to(dtype)  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
    drawn = pictures(24, dtype)
    batch = Batch({"images": drawn[:PRIVATE], "labels": torch.arange(PRIVATE) % CLASSES})
    public = Batch({"images": drawn[PRIVATE:], "labels": torch.arange(20) % CLASSES})
    return Client(Task(model, cross_entropy, Images(shape=(1, SIDE, SIDE)), CLASSES), batch, public)


def defense_checks() -> tuple[Callable[..., None], ...]:
    """Every check as `check(defense, client=None)`; ready for `pytest.mark.parametrize`."""
    return (
        check_metadata,
        check_form,
        check_does_something,
        check_keeps_the_form_of_the_update,
        check_writes_to_nothing,
        check_reproducible_when_seeded,
        check_secret_when_not_seeded,
        check_several_local_steps,
        check_adversary_view,
    )


def check_defense(defense: Any, client: Client | None = None) -> None:
    """Run every check on `defense`: a class with usable defaults, or an instance. Raises: ContractError."""
    for check in defense_checks():
        check(defense, client)


def check_metadata(defense: Any, client: Client | None = None) -> None:
    """The class says what it is called, who published it, what it protects and by which setting it gets stronger."""
    kind = _kind(defense)
    for fact, wanted in FACTS.items():
        value = inspect.getattr_static(kind, fact, None)
        demand(isinstance(value, wanted), f"{kind.__name__}.{fact} must be a class-level {wanted.__name__}: {value!r}.")
    demand(kind.name.replace("_", "").isalnum() and kind.name.islower(), f"{kind.name!r} is not lower_case_words.")
    unknown = sorted(set(kind.domains) - {ANY_DOMAIN, *domains})
    demand(kind.domains and (client is not None or not unknown), f"{kind.__name__}.domains names unknown {unknown}.")
    settings = {f.name for f in dataclasses.fields(kind)}
    demand(kind.strength in settings, f"{kind.__name__}.strength is '{kind.strength}', which is no setting of it.")
    demand(len(set(kind.strengths)) >= 2, f"{kind.__name__}.strengths needs at least two values for a curve.")
    for value in kind.strengths:
        kind(**{kind.strength: value})
    paper = kind.paper
    demand(paper.key and paper.title and paper.authors and paper.year > 1900, f"{kind.__name__}.paper is incomplete.")
    demand((kind.__doc__ or "").strip() and not kind.__doc__.startswith(f"{kind.__name__}("),
           f"{kind.__name__} has no docstring; `invertigo show {kind.name}` prints it.")  # fmt: skip


def check_form(defense: Any, client: Client | None = None) -> None:
    """A frozen dataclass whose settings are keyword-only and have defaults."""
    kind = _kind(defense)
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
    demand(frozen, f"{kind.__name__} must be a frozen dataclass of its settings.")
    for item in dataclasses.fields(kind):
        given = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        demand(item.kw_only and given, f"{kind.__name__}.{item.name} must be keyword-only and have a default.")
    demand(isinstance(_instance(defense), Defense), f"{kind.__name__} lacks a member of invertigo.types.Defense.")


def check_does_something(defense: Any, client: Client | None = None) -> None:
    """What is sent differs from what the client would have sent, and the trace says so."""
    defended, plain = _release(defense, client), _client(client)
    raw = train(plain.task, plain.batch, plain.local).update.tensors
    sent, trace = defended.update.tensors, defended.trace
    same = set(raw) == set(sent) and all(torch.equal(raw[name], sent[name]) for name in raw)
    demand(not same, f"Defense '{_kind(defense).name}' sends the raw update: it does nothing.")
    if trace is None:
        raise ContractError(f"Defense '{_kind(defense).name}' left no trace.")
    demand(not trace.undefended or set(raw) != set(sent), "The trace calls the release undefended, but it differs.")
    demand(-1 - 1e-9 <= trace.cosine <= 1 + 1e-9 and 0 <= trace.changed <= 1 and 0 <= trace.visible <= 1,
           f"The trace holds impossible values: {trace}.")  # fmt: skip
    demand(trace.bytes > 0, "A release takes at least a byte on the wire.")


def check_keeps_the_form_of_the_update(defense: Any, client: Client | None = None) -> None:
    """Names, shapes, dtypes and devices of the release are those of the task that all clients train; all is finite."""
    for dtype in (torch.float32, torch.float64):
        case = _ready(defense, client or easy_client(dtype))
        sent = _train(defense, case, seed=0).update.tensors
        parameters = {n: p for n, p in case.task.model.named_parameters() if p.requires_grad}
        demand(set(sent) == set(parameters), f"The release has other names: {sorted(set(sent) ^ set(parameters))[:5]}.")
        for name, tensor in sent.items():
            like = parameters[name]
            kept = (tensor.shape, tensor.dtype, tensor.device) == (like.shape, like.dtype, like.device)
            demand(kept, f"'{name}' became {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}.")
            demand(torch.isfinite(tensor).all(), f"'{name}' of the release holds NaN or Inf.")
        if client is not None:
            return


def check_writes_to_nothing(defense: Any, client: Client | None = None) -> None:
    """The client's model, batch and gradients, and the global random states, stay as they are."""
    case = _ready(defense, _client(client))
    watched = _Watched(_instance(defense))
    before = state.of_model(case.task.model) | state.of_process() | state.of_batch(case.batch)
    train(case.task, case.batch, case.local, defense=watched, secret=_secret(0))  # type: ignore[arg-type]
    after = state.of_model(case.task.model) | state.of_process() | state.of_batch(case.batch)
    changed = state.changes(before, after) + watched.written
    demand(not changed, f"Defense '{_kind(defense).name}' wrote to {', '.join(changed[:5])}.")


def check_reproducible_when_seeded(defense: Any, client: Client | None = None) -> None:
    """The same secret seed gives the same bits."""
    case = _ready(defense, _client(client))
    one, two = (_train(defense, case, seed=5).update.tensors for _ in range(2))
    differing = [name for name in one if not torch.equal(one[name], two[name])]
    demand(not differing, f"With the same seed, '{_kind(defense).name}' sends other values of {differing[:3]}.")


def check_secret_when_not_seeded(defense: Any, client: Client | None = None) -> None:
    """A defense that draws at random draws anew when no seed is asked for, whatever PyTorch's global seed."""
    case = _ready(defense, _client(client))
    drawn = [_with_global_seed(seed, defense, case, secret=seed) for seed in (1, 2)]
    if all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0]):
        return  # it draws nothing
    open_ones = [_with_global_seed(0, defense, case, secret=None) for _ in range(2)]
    same = all(torch.equal(open_ones[0][name], open_ones[1][name]) for name in open_ones[0])
    demand(not same, f"'{_kind(defense).name}' can be predicted from PyTorch's global seed; draw from step.generator.")


def check_several_local_steps(defense: Any, client: Client | None = None) -> None:
    """A client that sends the difference after several local steps is defended too."""
    case = _ready(defense, _client(client))
    local = LocalTraining(mode=case.local.mode, sends="difference", epochs=2, batch_size=len(case.batch) // 2)
    found = train(case.task, case.batch, local, defense=_instance(defense), secret=_secret(0))
    demand(found.trace is not None and all(t.isfinite().all() for t in found.update.tensors.values()),
           f"'{_kind(defense).name}' does not survive several local steps.")  # fmt: skip


def check_adversary_view(defense: Any, client: Client | None = None) -> None:
    """What an informed adversary knows is said in words, fits the model, and lets gradients through."""
    case, instance = _ready(defense, _client(client)), _instance(defense)
    for releases in (1, 3):
        seen = observe_round(
            case.task, case.batch, case.local, level=1, defense=instance, secret=_secret(0), releases=releases
        ).observation
        before = state.of_observation(seen)
        view = instance.adversary_view(seen)
        demand(isinstance(view, AdversaryView) and view.knows.strip(), f"{instance.name}.adversary_view says nothing.")
        demand(not state.changes(before, state.of_observation(seen)), "adversary_view wrote to the observation.")
        _check_view(view, seen.informed(view))


def _check_view(view: AdversaryView, seen: Observation) -> None:
    parameters = seen.parameters
    for part in (view.visible or {}, view.noise_std or {}):
        strange = sorted(set(part) - set(parameters))
        demand(not strange, f"The view names {strange[:3]}, which the model does not have.")
    for name, mask in (view.visible or {}).items():
        demand(mask.shape == parameters[name].shape, f"The mask of '{name}' is {tuple(mask.shape)}.")
        demand(((mask == 0) | (mask == 1)).all(), f"The mask of '{name}' must be 0 or 1 everywhere.")
    if view.surrogate is not None:
        draws = _secret(1)
        candidate = {k: torch.randn(2, *p.shape, generator=draws).to(p).requires_grad_() for k, p in parameters.items()}
        made = view.surrogate(candidate)
        demand(all(made[k].shape == candidate[k].shape for k in candidate), "The surrogate changes shapes.")
        if view.replay is not None:
            sent = view.replay({name: tensor.detach() for name, tensor in candidate.items()})
            demand(all(sent[k].shape == p.shape for k, p in candidate.items()), "The replay changes shapes.")
        total = torch.stack([tensor.sum() for tensor in made.values()]).sum()
        slopes = torch.autograd.grad(total, list(candidate.values()), allow_unused=True)
        demand(any(s is not None and s.any() for s in slopes), "No gradient passes through the surrogate.")


class _Watched:
    """The defense, with a look at its arguments before and after every hook."""

    def __init__(self, defense: Defense) -> None:
        self._defense, self.written = defense, list[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._defense, name)
        return self._guarded(name, found) if name.startswith("on_") else found

    def _guarded(self, hook: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(given: Batch | Mapping[str, Tensor], step: Any) -> Any:
            tensors = given.fields if isinstance(given, Batch) else given
            before = {f"the {hook} argument '{k}'": t.clone() for k, t in tensors.items()}
            result = call(given, step)
            after = {f"the {hook} argument '{k}'": t for k, t in tensors.items()}
            self.written += state.changes(before, after)
            return result

        return watched


def _kind(defense: Any) -> Any:
    return defense if isinstance(defense, type) else type(defense)


def _instance(defense: Any) -> Any:
    return defense() if isinstance(defense, type) else defense


def _client(client: Client | None) -> Client:
    return client or easy_client()


def _ready(defense: Any, client: Client) -> Client:
    task = _instance(defense).prepare(client.task, client.public, generator=_secret(7))
    return dataclasses.replace(client, task=task)


def _secret(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _train(defense: Any, client: Client, seed: int | None) -> Trained:
    secret = None if seed is None else _secret(seed)
    return train(client.task, client.batch, client.local, defense=_instance(defense), secret=secret)


def _with_global_seed(seed: int, defense: Any, case: Client, secret: int | None) -> Mapping[str, Tensor]:
    """`generator` seeds the global random state while the client trains."""
    hidden = None if secret is None else _secret(secret)
    return train(
        case.task, case.batch, case.local, generator=_secret(seed), defense=_instance(defense), secret=hidden
    ).update.tensors


def _release(defense: Any, client: Client | None) -> Trained:
    return _train(defense, _ready(defense, _client(client)), seed=0)
