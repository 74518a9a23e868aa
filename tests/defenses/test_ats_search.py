"""The search for a policy: both scores by loops, the ranking, and a search that is interrupted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import Batch, Images, Task
from invertigo.defenses import ATS
from invertigo.defenses.ats_scores import jacobian_score, similarity_areas
from invertigo.defenses.ats_search import Candidate, PolicySearch, Search, search_policies
from invertigo.types import ConfigurationError, CorruptFileError, InvalidValueError

SMALL = Search(candidates=6, examples=2, group=8, groups=2, bins=4, least_accuracy=-1e9)


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Task(model, cross_entropy, Images(shape=(1, 8, 8), mean=(0.4,), std=(0.2,)), 3)


@pytest.fixture
def public(task):
    pixels = torch.rand((18, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Batch({"images": task.domain.from_unit(pixels), "labels": torch.arange(18) % 3})


def area_by_loop(task, pixels, label, noise, bins):
    def layers(image):
        loss = task.loss(task.model((image[None] - 0.4) / 0.2), label[None])
        return [g.flatten().numpy() for g in torch.autograd.grad(loss, list(task.model.parameters()))]

    target, similarities = layers(pixels), []
    for step in range(bins + 1):
        mixed = layers(step / bins * pixels + (1 - step / bins) * noise)
        pairs = zip(mixed, target)
        similarities.append(np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]))
    return sum((a + b) / 2 for a, b in itertools.pairwise(similarities)) / bins


def test_the_area_is_that_of_a_walk_from_noise_to_the_image(task, public):
    pixels, labels = task.domain.to_unit(public["images"])[:3], public["labels"][:3]
    noise = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = similarity_areas(task, pixels, labels, noise, bins=5)
    assert found.tolist() == pytest.approx(
        [area_by_loop(task, x, y, u, 5) for x, y, u in zip(pixels, labels, noise)], rel=1e-6
    )
    assert similarity_areas(task, pixels, labels, pixels, bins=5).tolist() == pytest.approx([1, 1, 1])


def test_the_accuracy_score_is_that_of_the_correlations(task, public):
    images = public["images"]
    rows = []
    for image in images:
        given = image[None].clone().requires_grad_()
        task.model(given).sum().backward()
        rows.append(given.grad.flatten().numpy())
    values = np.linalg.eigvals(np.corrcoef(np.stack(rows))).real
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5)) / len(images)
    assert jacobian_score(task.model, images) == pytest.approx(expected, rel=1e-6)
    assert jacobian_score(task.model, images) < -1
    alike = images[:1].repeat(2, 1, 1, 1)  # eigenvalues 2 and 0
    assert jacobian_score(task.model, alike) == pytest.approx(-(math.log(2) + 0.5 + math.log(1e-5) + 1e5) / 2, rel=1e-4)


def test_the_best_are_private_in_the_mean_and_evenly_and_accurate_enough():
    scored = (
        Candidate("1", 0.2, 0.30, -1.2),  # 0.7 * 0   + 0.3 * 1
        Candidate("2", 0.4, 0.10, -1.2),  # 0.7 * 0.5 + 0.3 * 0
        Candidate("3", 0.6, 0.20, -1.2),  # 0.7 * 1   + 0.3 * 0.5
        Candidate("4", 0.2, 0.10, -9.0),  # the most private, and not learnt
    )
    assert PolicySearch(scored, Search()).policies() == ["1", "2"]
    assert PolicySearch(scored, Search(alpha=0.2, keep=3)).policy() == "2+3+1"
    assert ATS(policy=PolicySearch(scored, Search()).policy()).sequences()
    with pytest.raises(ConfigurationError, match=r"best has -1\.2"):
        PolicySearch(scored, Search(least_accuracy=-1.1)).policy()


def test_a_search_returns_a_policy_and_the_same_one_for_the_same_seed(task, public):
    def searched(seed):
        return ATS().search(task, public, SMALL, generator=torch.Generator().manual_seed(seed))

    assert searched(0) == searched(0)
    assert searched(0).policy != searched(1).policy
    assert len(searched(0).sequences()) == 2


def test_a_search_that_was_interrupted_goes_on(task, public, tmp_path):
    def search(file, watch=None):
        return search_policies(task, public, SMALL, generator=torch.Generator().manual_seed(3), file=file, watch=watch)

    whole, seen = search(None), []
    file = tmp_path / "search.jsonl"
    assert len(search(file, lambda done, total, one: done == 2).candidates) == 2
    file.write_text(file.read_text() + '{"policy": "1-')
    again = search(file, lambda done, total, one: seen.append((done, total)))
    assert again == whole
    assert seen[-1] == (6, 6)
    listed = [json.loads(line) for line in file.read_text().splitlines()[1:] if line.endswith("}")]
    assert [one["policy"] for one in listed] == [one.policy for one in whole.candidates]
    with pytest.raises(CorruptFileError, match="another search"):
        search_policies(task, public, SMALL, generator=torch.Generator().manual_seed(4), file=file)


def test_no_operation_and_repeats_are_not_scored(task, public):
    found = search_policies(
        task, public, Search(candidates=40, operations=1, examples=1, group=4, groups=1, bins=1),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    names = [candidate.policy for candidate in found.candidates]
    assert len(names) == len(set(names))
    assert all(0 <= int(name) < 50 for name in names)
    assert len(names) < 40


@pytest.mark.parametrize("settings", [{"candidates": 0}, {"group": 1}, {"alpha": 1.1}])
def test_bad_settings_of_a_search_are_refused(settings):
    with pytest.raises(InvalidValueError, match="Search"):
        Search(**settings)


def test_too_few_examples_are_refused(task, public):
    with pytest.raises(ConfigurationError, match="groups of 64"):
        search_policies(task, public, generator=torch.Generator())
