"""Graph networks: their equations node by node, padding, levels, and PyTorch Geometric's own layers."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import models
from invertigo.domains.graphs import Graphs
from invertigo.models import from_geometric, graph_task
from invertigo.types import InvalidValueError, UnknownNameError

FEATURES, NODES, CLASSES = 7, 6, 3
DOMAIN = Graphs(blocks=(FEATURES,), nodes=NODES)


def graphs(count=2, seed=0):
    """Random graphs of 3 to 6 nodes, padded to 6, in float64."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, NODES, FEATURES, generator=generator, dtype=torch.float64)
    upper = (torch.rand(count, NODES, NODES, generator=generator) < 0.4).double().triu(1)
    sizes = torch.randint(3, NODES + 1, (count,), generator=generator)
    present = torch.arange(NODES) < sizes[:, None]
    both = present[:, :, None] & present[:, None]
    return features * present[..., None], (upper + upper.mT) * both, present


def build(name, **options):
    generator = torch.Generator().manual_seed(0)
    options = {"hidden": 10, "readout": (8, 5)} | options
    return models.build(
        name, input_shape=(NODES, FEATURES), num_classes=CLASSES, generator=generator, **options
    ).double()


def gcn_by_hand(model, x, a):
    """Sums over neighbours, one node at a time."""
    n, act = len(x), model.activation
    degree = [1 + sum(a[i]) for i in range(n)]
    h = x
    for number, layer in enumerate(model.layers):
        h = act(h) if number else h
        z = torch.stack(
            [sum(h[j] / (degree[i] * degree[j]) ** 0.5 for j in range(n) if i == j or a[i, j]) for i in range(n)]
        )
        h = z @ layer.linear.weight.T + (0 if layer.bias is None else layer.bias)
    return model.readout(torch.cat([x, h], 1) if model.concatenate else h)


def gat_by_hand(model, x, a):
    n, h = len(x), x
    for number, layer in enumerate(model.layers):
        h = model.activation(h) if number else h
        heads = []
        messages = layer.linear(h).unflatten(-1, (layer.heads, -1))
        skipped = layer.skip(h).unflatten(-1, (layer.heads, -1))
        for k in range(layer.heads):
            rows = []
            for i in range(n):
                near = [j for j in range(n) if j == i or a[i, j]]
                raw = [(messages[i, k] @ layer.own[k] + messages[j, k] @ layer.other[k]).item() for j in near]
                weights = [math.exp(r if r > 0 else 0.2 * r) for r in raw]
                rows.append(sum(w * messages[j, k] for w, j in zip(weights, near)) / sum(weights) + skipped[i, k])
            heads.append(torch.stack(rows))
        h = torch.cat(heads, 1) if layer.concatenate else sum(heads) / len(heads)
        h = h + layer.bias
    return model.readout(h)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "by_hand", "options"),
    [
        ("gcn", gcn_by_hand, {}),
        ("gcn", gcn_by_hand, {"activation": "gelu", "bias": True, "concatenate": False}),
        ("gat", gat_by_hand, {}),
        ("gat", gat_by_hand, {"heads": 5, "activation": "relu"}),
    ],
)
def test_the_equations_node_by_node(name, by_hand, options, layers):
    model = build(name, layers=layers, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    features, adjacency, present = graphs(4)
    logits = model(features, adjacency, present)
    assert logits.shape == (4, CLASSES)
    for g, n in enumerate(present.sum(1).tolist()):
        expected = by_hand(model, features[g, :n], adjacency[g, :n, :n])
        torch.testing.assert_close(logits[g], expected.mean(0))


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_node_level_answers_every_node_and_padding_trains_nothing(name):
    model = build(name, level="node")
    features, adjacency, present = graphs()
    logits = model(features, adjacency, present)
    assert logits.shape == (2, NODES, CLASSES)
    assert not logits[~present].any()
    labels = torch.arange(2 * NODES).reshape(2, NODES) % CLASSES
    task = graph_task(model, DOMAIN, CLASSES)
    fields = {"features": features, "adjacency": adjacency, "present": present, "labels": labels}
    expected = F.cross_entropy(logits[present], labels[present])
    torch.testing.assert_close(task.evaluate(model, fields), expected)
    fields["labels"] = torch.where(present, labels, (labels + 1) % CLASSES)
    torch.testing.assert_close(task.evaluate(model, fields), expected)


def test_the_losses():
    model = build("gcn")
    features, adjacency, present = graphs()
    fields = {"features": features, "adjacency": adjacency, "present": present, "labels": torch.tensor([2, 0])}
    logits = model(features, adjacency, present)
    wanted = F.binary_cross_entropy_with_logits(logits, torch.eye(3, dtype=torch.float64)[[2, 0]])
    torch.testing.assert_close(graph_task(model, DOMAIN, CLASSES, loss="bce").evaluate(model, fields), wanted)
    wanted = F.cross_entropy(logits, fields["labels"])
    torch.testing.assert_close(graph_task(model, DOMAIN, CLASSES).evaluate(model, fields), wanted)
    with pytest.raises(UnknownNameError, match="cross_entropy"):
        graph_task(model, DOMAIN, CLASSES, loss="bse")


def test_the_papers_sizes():
    gcn = models.build("gcn", input_shape=(64, 140), num_classes=2)
    assert [tuple(p.shape) for p in gcn.parameters()] == [
        *((300, 140), (300, 300), (300, 440), (300,), (64, 300), (64,), (2, 64), (2,)),
    ]
    gat = models.build("gat", input_shape=(64, 140), num_classes=2)
    assert gat.layers[0].linear.weight.shape == (300, 140)
    assert gat.layers[1].linear.weight.shape == (600, 300)
    assert gat.readout[0].weight.shape == (300, 300)


def test_wrong_sizes_are_refused():
    with pytest.raises(InvalidValueError, match="nodes, features"):
        models.build("gcn", input_shape=(3, 32, 32), num_classes=2)
    with pytest.raises(InvalidValueError, match="3 heads"):
        build("gat", heads=3)
    with pytest.raises(InvalidValueError, match="layers"):
        build("gcn", layers=0)


def geometric_layers(kind, **options):
    pyg = pytest.importorskip("torch_geometric.nn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gcn":
            first, second = pyg.GCNConv(FEATURES, 8), pyg.GCNConv(8, 8)
        else:
            first = pyg.GATConv(FEATURES, 4, heads=2, **options)
            second = pyg.GATConv(8, 8, heads=3, concat=False, **options)
        head = nn.Linear(8, CLASSES)
    for layer in (first, second):
        nn.init.normal_(layer.bias, std=0.3, generator=torch.Generator().manual_seed(1))
    return first.double(), second.double(), head.double()


@pytest.mark.parametrize(
    ("kind", "options"), [("gcn", {}), ("gat", {}), ("gat", {"residual": True, "negative_slope": 0.1})]
)
@pytest.mark.parametrize("pool_first", [True, False])
def test_geometrics_layers_give_the_same_values_and_gradients(kind, options, pool_first):
    pyg = pytest.importorskip("torch_geometric.nn")
    first, second, head = geometric_layers(kind, **options)
    model = from_geometric([first, second], head, activation=nn.ELU(), pool_first=pool_first)
    features, adjacency, present = graphs(3)
    graph, node = present.nonzero().T
    where = torch.full(present.shape, -1)
    where[present] = torch.arange(len(graph))
    g, i, j = adjacency.nonzero().T
    edges, x = torch.stack([where[g, i], where[g, j]]), features[graph, node]
    e = second(F.elu(first(x, edges)), edges)
    theirs = head(pyg.global_mean_pool(e, graph)) if pool_first else pyg.global_mean_pool(head(e), graph)
    ours = model(features, adjacency, present)
    torch.testing.assert_close(ours, theirs)
    parameters = [*first.parameters(), *second.parameters(), *head.parameters()]
    weight = torch.arange(9, dtype=torch.float64).reshape(3, CLASSES)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), parameters) for out in (ours, theirs))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other)
    assert {p.data_ptr() for p in model.parameters()} == {p.data_ptr() for p in parameters}


def test_geometric_layers_without_a_dense_form_are_refused():
    pyg = pytest.importorskip("torch_geometric.nn")
    with pytest.raises(InvalidValueError, match="SAGEConv"):
        from_geometric([pyg.SAGEConv(3, 3)], nn.Linear(3, 2), activation=nn.ReLU())
    with pytest.raises(InvalidValueError, match="counts itself"):
        from_geometric([pyg.GCNConv(3, 3, improved=True)], nn.Linear(3, 2), activation=nn.ReLU())
    with pytest.raises(InvalidValueError, match="dropout"):
        from_geometric([pyg.GATConv(3, 3, dropout=0.5)], nn.Linear(3, 2), activation=nn.ReLU())
