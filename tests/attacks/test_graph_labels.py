"""The label of a graph that gradient matching is not told."""

import dataclasses

import pytest
import torch

from invertigo import data, models
from invertigo.attacks import reconstruct
from invertigo.federation import observe
from invertigo.models import graph_task
from invertigo.types import Batch, LocalTraining

DRUGS = data.load("drugs")
DOMAIN = DRUGS.domain(standardise=True)


@pytest.mark.parametrize("attack", ["graph_dlg", "graph_tag"])
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("sends", ["gradient", "difference"])
def test_the_label_of_one_graph_is_read_off_the_last_bias(attack, label, sends):
    model = models.build(
        "gat", input_shape=(DOMAIN.nodes, DOMAIN.width), num_classes=3, hidden=16, generator=torch.Generator()
    )
    batch = Batch({**DRUGS.batch([3], DOMAIN).fields, "labels": torch.tensor([label])})
    local = LocalTraining(mode="eval", sends=sends)
    seen = observe(graph_task(model, DOMAIN, 3), batch, local, level=2)
    knowledge = dataclasses.replace(seen.knowledge, labels=None, num_examples=1)
    result = reconstruct(dataclasses.replace(seen, knowledge=knowledge), attack, iterations=2)
    assert result.fields["labels"].tolist() == [label]
    assert result.labels_inferred
