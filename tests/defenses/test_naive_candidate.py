"""Who knows the defense also tries the attack of who does not, and judges both by what the defense would have sent."""

import dataclasses

import pytest
import torch

from invertigo import defenses
from invertigo.attacks import reconstruct
from invertigo.attacks.matching.engine import Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.naive_candidate import NAIVE_NOTE, compares, with_candidate
from invertigo.attacks.matching.objectives import Cosine, Nothing
from invertigo.attacks.matching.pace import Optimum
from invertigo.attacks.matching.priors import GroupConsistency, Multiplied, TotalVariation
from invertigo.federation import observe
from invertigo.testing.defenses import easy_client
from invertigo.types import AdversaryView, LocalTraining, Update

ATTACK = {"iterations": 40, "total_variation": 1e-3}


@pytest.fixture(scope="module")
def seen():
    client = easy_client()
    return observe(client.task, client.batch.select(slice(0, 1)), LocalTraining(), level=2)


def misled(seen):
    """In the hands of somebody who reads the update the wrong way round."""
    turned = {name: -t for name, t in seen.update.tensors.items()}
    return seen.informed(AdversaryView("all signs are turned", update=Update(turned, "gradient")))


def test_the_naive_reading_of_an_informed_observation_is_what_was_received(seen):
    again = misled(seen).naive()
    assert again.knowledge.view is None
    assert all(torch.equal(again.update.tensors[k], t) for k, t in seen.update.tensors.items())


def test_of_several_releases_the_naive_attack_reads_the_first(released):
    noise = defenses.GaussianNoise(std=0.1)
    observation = released(noise, releases=3)[2].observation
    informed = observation.informed(noise.adversary_view(observation))
    assert not torch.equal(informed.update.tensors["0.weight"], observation.update.tensors["0.weight"])
    assert torch.equal(informed.naive().update.tensors["0.weight"], observation.releases[0].tensors["0.weight"])


def test_a_view_that_leads_nowhere_is_overruled_by_what_would_have_been_sent(seen):
    """Only signs are sent, and the surrogate is blind: the naive attack's candidate gets more of the signs right."""
    signs = Update({name: t.sign() for name, t in seen.update.tensors.items()}, "gradient")
    received = dataclasses.replace(seen, update=signs)
    view = AdversaryView(
        "signs, through a surrogate that tells nothing",
        surrogate=lambda update: {name: 0 * t for name, t in update.items()},
        replay=lambda update: {name: t.sign() for name, t in update.items()},
    )
    naive = reconstruct(received, "inverting_gradients", **ATTACK)
    found = reconstruct(received.informed(view), "inverting_gradients", **ATTACK)
    assert torch.equal(found.fields["images"], naive.fields["images"])  # the same start, the same attack
    assert NAIVE_NOTE in found.notes
    assert NAIVE_NOTE not in naive.notes


def test_a_view_that_explains_more_is_kept(seen):
    """The defense turns all signs: the naive attack is led the wrong way, and what it finds does not explain it."""
    turned = {name: -t for name, t in seen.update.tensors.items()}
    received = dataclasses.replace(seen, update=Update(turned, "gradient"))
    view = AdversaryView("signs are turned", surrogate=lambda update: {name: -t for name, t in update.items()})
    found = reconstruct(received.informed(view), "inverting_gradients", **ATTACK)
    plain = reconstruct(seen, "inverting_gradients", **ATTACK)
    assert NAIVE_NOTE not in found.notes
    assert found.objective == pytest.approx(plain.objective, rel=0.05)


def matching(objective, *priors):
    return Matching(name="test", objective=objective, optimiser=Adam(iterations=1), priors=priors)


def test_candidates_are_not_compared_where_nothing_is_known_or_seen(seen):
    hidden = {name: torch.zeros_like(t) for name, t in seen.update.tensors.items()}
    views = {"all": AdversaryView("all"), "none": AdversaryView("none", visible=hidden)}
    told = {name: compares(matching(Cosine()).problem(seen.informed(view))[0]) for name, view in views.items()}
    assert told == {"all": True, "none": False}
    assert not compares(matching(Cosine()).problem(seen)[0])
    assert not compares(matching(Nothing()).problem(seen.informed(views["all"]))[0])


def test_the_candidate_comes_last_with_the_usual_prior_and_no_draws(seen):
    attack = matching(Cosine(), TotalVariation(0.5), GroupConsistency(1.0))
    naive = attack.problem(seen)[0]
    view = AdversaryView(
        "draws", unknowns={"draw": (2,)}, transform=lambda f: {k: v for k, v in f.items() if k != "draw"}
    )
    problem = attack.problem(seen.informed(view))[0]
    factors = torch.tensor([3.0, 10.0], dtype=torch.float64)
    problem = dataclasses.replace(problem, priors=(Multiplied(TotalVariation(0.5), factors), problem.priors[1]))
    row = torch.rand(1, naive.space.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = Optimum(torch.zeros(2, problem.space.size, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 1, "")
    more, optimum = with_candidate(problem, start, naive.space, row)
    assert more.priors[0].factors.tolist() == [3.0, 10.0, 1.0]
    named = problem.space.unpack(optimum.best)
    assert torch.equal(named["images"][2].flatten(), row[0])
    assert not named["draw"].any()
    # The usual prior, and no pull towards other restarts.
    expected = matching(Cosine(), TotalVariation(0.5)).problem(seen)[0].value(row)
    assert optimum.values[2] == pytest.approx(float(expected))


def test_a_candidate_of_another_form_is_left_out(seen):
    attack = matching(Cosine())
    one = attack.problem(seen.informed(AdversaryView("all")))[0]
    client = easy_client()
    two = attack.problem(observe(client.task, client.batch.select(slice(0, 2)), LocalTraining(), level=2))[0]
    start = Optimum(torch.zeros(1, one.space.size, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 1, "")
    row = torch.zeros(1, two.space.size, dtype=torch.float64)
    assert with_candidate(one, start, two.space, row) == (one, start)
