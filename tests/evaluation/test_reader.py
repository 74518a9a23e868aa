"""An independent classifier reads rebuilt pictures: attacker's accuracy."""

import pytest
import torch

from invertigo import audit, data
from invertigo.auditing import Scenario
from invertigo.domains import Images
from invertigo.evaluation import train_reader
from invertigo.types import Batch


@pytest.fixture(scope="module")
def domain():
    return Images((1, 8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def reader(domain):
    digits = data.load("digits", limit=600)
    batch = Batch({"images": domain.from_pixels(digits.images[100:]), "labels": digits.labels[100:]})
    return train_reader(batch, domain, 10, epochs=4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def truth(domain):
    digits = data.load("digits", limit=100)
    return Batch({"images": domain.from_pixels(digits.images), "labels": digits.labels})


def test_it_reads_clean_images_and_not_noise(reader, truth):
    assert reader.accuracy(truth) > 0.8
    noise = {"images": torch.rand(truth["images"].shape, generator=torch.Generator().manual_seed(0))}
    order = torch.arange(100)
    assert sum(reader.scores(truth, noise, order)) < 30
    assert sum(reader.scores(truth, truth.fields, order)) == pytest.approx(100 * reader.accuracy(truth))


def test_rebuilt_images_are_read_in_the_order_of_the_truth(reader, truth):
    backwards = {"images": truth["images"].flip(0)}
    matched = reader.scores(truth, backwards, torch.arange(100).flip(0))
    assert matched == reader.scores(truth, truth.fields, torch.arange(100))
    assert sum(reader.scores(truth, backwards, torch.full((100,), -1))) <= 20  # all are mid-grey: one class


def test_an_audit_reports_what_was_readable_beside_the_other_scores():
    scenario = Scenario.model_validate(
        {
            "data": {"name": "digits", "limit": 300, "count": 2, "public_count": 200},
            "model": {"name": "mlp", "options": {"hidden": [16]}},
            "adversary": {"levels": [2]},
            "attacks": [{"name": "linear_layer"}, {"name": "inverting_gradients", "iterations": 5}],
            "reader_epochs": 1,
        }
    )
    record = audit(scenario).record
    assert record.metrics[-1].name == "readable"
    assert all(set(one.scores["readable"]) <= {0.0, 1.0} and len(one.scores["readable"]) == 2 for one in record.ran)
    assert "readable" not in [
        metric.name for metric in audit(scenario.model_copy(update={"reader_epochs": 0})).record.metrics
    ]
