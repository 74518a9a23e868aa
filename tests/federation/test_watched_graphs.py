"""`watch` records steps of graph networks, and says what it cannot read."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import invertigo
from invertigo import data, models
from invertigo.attacks import reconstruct
from invertigo.domains.sameness import same_graph
from invertigo.federation import watch
from invertigo.models import from_geometric
from invertigo.types import InvalidValueError

DRUGS = data.load("drugs")
DOMAIN = DRUGS.domain(standardise=True)
ASPIRIN = list(DRUGS.names).index("aspirin")


def gcn(domain=DOMAIN, **options):
    shape = (domain.nodes, domain.width)
    return models.build("gcn", input_shape=shape, num_classes=2, generator=torch.Generator().manual_seed(0), **options)


def watched(model, batch, *, domain=DOMAIN, loss=F.cross_entropy, call=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, loss, domain=domain) as tape:
        answers = (call or model)(batch["features"], batch["adjacency"], batch["present"])
        labels = batch["labels"]
        if answers.ndim == 3:
            answers, labels = answers[batch["present"]], labels[batch["present"]]
        loss(answers, labels).backward()
        optimizer.step()
    return tape


def described(fields, domain=DOMAIN):
    present = fields["present"][0]
    kinds = [hash(tuple(row)) for row in domain.choices(fields["features"][0][present]).tolist()]
    near = fields["adjacency"][0][present][:, present]
    return kinds, [(row > 0.5).nonzero()[:, 0].tolist() for row in near]


def same(truth, found):
    return same_graph(*described(truth), *described(found))


@pytest.mark.parametrize("keywords", [False, True])
def test_a_watched_graph_comes_back_from_its_own_gradient(keywords):
    batch, model = DRUGS.batch([ASPIRIN], DOMAIN), gcn()

    def call(features, adjacency, present):
        return model(present=present, adjacency=adjacency, features=features)

    tape = watched(model, batch, call=call if keywords else None)
    assert all(torch.equal(tape.batch[name], batch[name]) for name in batch.fields)
    assert tape.task.num_classes == 2
    assert same(batch, reconstruct(tape.observation(level=1), "grain").fields)


def test_a_watched_step_is_audited():
    audit = invertigo.audit(watched(gcn(), DRUGS.batch([ASPIRIN], DOMAIN)), attacks="grain", public=DRUGS, decoys=10)
    assert audit.record.attacks[0].scores["exact"] == [1.0]


def test_labels_of_nodes_are_put_where_the_nodes_are():
    batch = DRUGS.batch([ASPIRIN], DOMAIN)
    present = batch["present"]
    labels = torch.randint(0, 2, present.shape, generator=torch.Generator().manual_seed(0)).where(present, -1)
    batch.fields["labels"] = labels
    tape = watched(gcn(level="node"), batch)
    assert torch.equal(tape.batch["labels"], labels)
    for name, sent in tape.update.tensors.items():
        again = invertigo.federation.train_locally(tape.task, tape.batch, tape.local).tensors[name]
        torch.testing.assert_close(again, sent)


def test_a_graph_network_without_a_domain_is_refused_before_the_step():
    with pytest.raises(InvalidValueError, match=r"domain=Graphs\(blocks=...\)"):
        watched(gcn(), DRUGS.batch([ASPIRIN], DOMAIN), domain=None)


def test_a_step_that_reads_no_dense_graphs_is_explained():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(DOMAIN.width, 2)

        def forward(self, features, adjacency, present):
            return self.head(features.sum(1))

    batch, model = DRUGS.batch([ASPIRIN], DOMAIN), Sums()
    with pytest.raises(InvalidValueError, match=r"\(graph, node, column\)"):
        watched(model, batch, call=lambda features, adjacency, present: model(features, adjacency, None))


def test_models_of_pytorch_geometric_are_sent_to_their_dense_form_and_that_is_watched():
    pyg = pytest.importorskip("torch_geometric.nn")

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = pyg.GCNConv(DOMAIN.width, 96, bias=False), pyg.GCNConv(96, 96, bias=False)
            self.head = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 2))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = Theirs()
    batch = DRUGS.batch([ASPIRIN], DOMAIN)
    with pytest.raises(InvalidValueError, match=r"'first' is a GCNConv.*from_geometric"):
        watched(theirs, batch)
    dense = from_geometric([theirs.first, theirs.second], theirs.head, activation=nn.ReLU(), pool_first=False)
    before = theirs.first.lin.weight.detach().clone()
    tape = watched(dense, batch)
    assert not torch.equal(before, theirs.first.lin.weight)
    assert same(batch, reconstruct(tape.observation(level=1), "grain").fields)
