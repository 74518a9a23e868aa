"""Noise of known size and missing entries: what they explain of a misfit, and which prior is chosen by it."""

import math

import pytest
import torch

from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.noise import (
    by_discrepancy,
    by_replay,
    inverse_variances,
    is_partial,
    multipliers,
    spread,
    strongest_that_fits,
)
from invertigo.attacks.matching.objectives import L1, Cosine, SquaredL2
from invertigo.attacks.matching.priors import Belief, Multiplied, TotalVariation
from invertigo.federation import observe
from invertigo.federation.functional import simulating
from invertigo.testing.defenses import easy_client
from invertigo.types import AdversaryView, LocalTraining, Update


@pytest.mark.parametrize("objective", [SquaredL2(2.0), L1(), Cosine()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("weighted", [False, True])
def test_noise_explains_the_misfit_of_the_truth(objective, weighted):
    generator = torch.Generator().manual_seed(0)
    stds = [0.5, 2.0]
    truth = [torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (40_000, 20_000)]
    noisy = [t + s * torch.randn(t.shape, generator=generator, dtype=t.dtype) for t, s in zip(truth, stds)]
    weights = [torch.tensor(w, dtype=torch.float64) for w in (4.0, 0.25)] if weighted else None
    misfit = float(objective.value_and_cotangent(truth, noisy, weights)[0])
    assert objective.explained_by(noisy, stds, weights) == pytest.approx(misfit, rel=0.02)


def test_the_strongest_prior_that_still_fits_is_chosen():
    factors = torch.tensor([1.0, 3.0, 10.0, 30.0, 100.0])

    def chosen(*misfits):
        return strongest_that_fits(torch.tensor(misfits), factors, explained=1.0, entries=20_000)

    assert chosen(0.9, 0.95, 0.99, 1.005, 1.2) == 3
    assert chosen(1.5, 1.505, 1.4, 1.41, 1.6) == 3  # none comes as near as the noise would let it
    assert chosen(0.9, 0.9, math.nan, math.nan, 9.0) == 1


def test_layers_weigh_by_the_inverse_of_their_noise_where_it_differs():
    update = {"a": torch.ones(10), "b": torch.ones(10)}
    assert inverse_variances(None, {"a": 0.3, "b": 0.3}, update, update) is None
    assert inverse_variances(None, {"a": 1e-9, "b": 2e-9}, update, update) is None  # attacks leave more than that
    a, b = inverse_variances(None, {"a": 0.3, "b": 1.0}, update, update)
    assert float(a / b) == pytest.approx((1.0 + 0.01) / (0.09 + 0.01), rel=1e-5)


def test_each_restart_has_its_own_weight():
    images = torch.rand(3, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    prior = Multiplied(TotalVariation(0.5), torch.tensor([1.0, 3.0, 10.0]))
    plain = TotalVariation(0.5)(Belief(images, {}, None))
    assert torch.allclose(prior(Belief(images, {}, None)), plain * prior.factors)
    assert torch.allclose(prior.of(2)(Belief(images[2:], {}, None)), 10 * plain[2:])


def matching_of(view):
    """A cosine attack on the first picture of the small client, its problem, and the picture as a flat row."""
    client = easy_client()
    batch = client.batch.select(slice(0, 1))
    seen = observe(client.task, batch, LocalTraining(), level=2).informed(view)
    attack = Matching(
        name="test", objective=Cosine(), optimiser=Adam(iterations=1), priors=(TotalVariation(1e-3),), start="grey"
    )
    return attack, attack.problem(seen)[0], batch["images"].reshape(1, -1)


def hiding(names):
    shapes = dict(easy_client().task.model.named_parameters())
    return {name: torch.zeros_like(p.detach()) for name, p in shapes.items() if name in names}


@pytest.mark.parametrize(
    ("view", "factors"),
    [
        (AdversaryView("all is seen"), None),
        (AdversaryView("known by ranges", partial=True), [1.0, 3.0, 10.0]),
        (AdversaryView("a layer is hidden", visible=hiding(["0.weight"])), [1.0, 3.0, 10.0]),
        (
            AdversaryView(
                "nothing is left to be matched", visible=hiding(dict(easy_client().task.model.named_parameters()))
            ),
            None,
        ),
        (AdversaryView("nothing of the mask is zero", visible={"0.bias": torch.ones(4)}), None),
        (AdversaryView("noise", noise_std={"3.weight": 1.0}), [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]),
    ],
    ids=lambda value: value.knows if isinstance(value, AdversaryView) else "",
)
def test_stronger_priors_are_tried_where_less_is_told(view, factors):
    attack, problem, _ = matching_of(view)
    made, start = spread(problem, attack.starting_point(problem, torch.Generator().manual_seed(0)))
    assert len(start) == len(factors or [1.0])
    assert is_partial(problem) == (factors is not None and len(factors) == 3)
    found = multipliers(made.priors)
    assert (found is None) if factors is None else (found.tolist() == factors)


def test_exact_entries_that_are_matched_about_as_well_leave_the_choice_to_the_prior():
    attack, problem, _ = matching_of(AdversaryView("known by ranges", partial=True))
    problem, _ = spread(problem, attack.starting_point(problem, torch.Generator().manual_seed(0)))
    factors = multipliers(problem.priors)
    assert by_discrepancy(problem, torch.tensor([0.0010, 0.0014, 0.0016]), factors) == 1
    assert by_discrepancy(problem, torch.tensor([0.0010, 0.0014, 0.00145]), factors) == 2
    assert by_discrepancy(problem, torch.tensor([0.0010, 0.0020, 0.0016]), factors) == 0


def test_the_candidate_whose_update_would_have_been_sent_alike_is_taken():
    view = AdversaryView(
        "signs",
        surrogate=lambda update: {name: 0 * tensor for name, tensor in update.items()},
        replay=lambda update: {name: tensor.sign() for name, tensor in update.items()},
    )
    attack, problem, truth = matching_of(view)
    sent = {name: tensor.sign() for name, tensor in problem.observation.update.tensors.items()}
    seen = problem.observation.informed(view)
    signs = type(seen)(
        seen.task, seen.parameters, seen.buffers, Update(sent, "gradient"), seen.local, seen.knowledge, seen.releases
    )
    problem = attack.problem(signs)[0]
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(3, truth.shape[1], generator=generator, dtype=truth.dtype)
    candidates = truth + torch.tensor([[0.5], [0.001], [0.2]], dtype=truth.dtype) * steps
    with simulating(signs.task.model, "eval"):
        assert by_replay(problem, candidates) == 1
        strong = torch.tensor([1.0, 1.0, 1.0, 10.0], dtype=truth.dtype)
        held = type(problem)(**{**vars_of(problem), "priors": (Multiplied(problem.priors[0], strong),)})
        # The truth twice, with equal evidence: the stronger prior is taken.
        assert by_replay(held, torch.cat([candidates[:2], truth, truth])) == 3


def vars_of(problem):
    return {name: getattr(problem, name) for name in problem.__dataclass_fields__}
