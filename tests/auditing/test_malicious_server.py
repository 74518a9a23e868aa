"""Rung 5 of the ladder: the audit lets a malicious server plant its model, and reads back what it got."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import invertigo
from invertigo import data, models
from invertigo.auditing.portfolio import choose
from invertigo.domains import Images
from invertigo.types import Batch, Task

FACES = data.load("faces", size=16)


def client(count=24, name="mlp", **options):
    model = models.build(
        name,
        input_shape=FACES.shape,
        num_classes=FACES.num_classes,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    batch = Batch({"images": FACES.images[:count], "labels": FACES.labels[:count]})
    public = Batch({"images": FACES.images[count:160], "labels": FACES.labels[count:160]})
    return model, batch, public


def test_a_malicious_server_rebuilds_what_an_honest_one_cannot():
    model, batch, public = client(48, hidden=(64, 32))  # too few neurons for the algebra on an honest model
    found = invertigo.audit(
        model, cross_entropy, batch, public=public, domain=Images(FACES.shape),
        levels=[1, 5], attacks=["linear_layer", "imprint"], budget=20,
    ).record  # fmt: skip
    by_name = {(r.attack, r.level): r for r in found.attacks}
    assert set(by_name) == {("linear_layer", 1), ("imprint", 5)}
    assert by_name["imprint", 5].recovered > by_name["linear_layer", 1].recovered
    assert by_name["imprint", 5].outcomes.count("exact") > 12
    fifth = found.levels[5]
    assert fifth.examined
    assert (fifth.strongest, fifth.strongest_level) == ("imprint", 5)
    assert "fowl2022robbing" in found.citations


def test_an_attack_that_finds_no_place_is_refused_with_the_reason():
    model, batch, public = client(4, name="lenet")
    found = invertigo.audit(
        model, cross_entropy, batch, public=public, domain=Images(FACES.shape),
        levels=[5], attacks=["imprint"], budget=20,
    ).record  # fmt: skip
    assert [(r.attack, r.level, r.status) for r in found.attacks] == [("imprint", 5, "refused")]
    assert "no place" in found.attacks[0].reason


@pytest.mark.parametrize("planting", [False, True])
def test_the_audit_plants_nothing_unless_rung_5_is_asked_for(planting):
    model, _, _ = client()
    task = Task(model, cross_entropy, Images(FACES.shape), FACES.num_classes)
    names = {entry.name for entry in choose("auto", task, 8, planting=planting)}
    assert ("imprint" in names) == planting
    assert "linear_layer" in names
