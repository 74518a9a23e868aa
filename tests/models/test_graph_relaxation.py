"""Attention on edges between zero and one: what gradient matching optimises."""

import torch

from invertigo.models.graph_layers import GraphAttention


def layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GraphAttention.of_width(5, 8).double()


def test_an_edge_of_no_weight_has_no_gradient_and_others_have_one():
    made = layer()
    features = torch.randn(1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    edges = torch.tensor([[0, 0.3, 0, 0.6], [0.3, 0, 0.9, 0], [0, 0.9, 0, 0.2], [0.6, 0, 0.2, 0]]).double()[None]
    edges.requires_grad_()
    (first,) = torch.autograd.grad(made(features, edges).square().sum(), edges, create_graph=True)
    assert torch.isfinite(first).all()
    assert bool((first[edges > 0] != 0).all())
    none = (edges == 0) & ~torch.eye(4, dtype=torch.bool)  # a node attends to itself whatever its edges
    assert bool((first[none] == 0).all())
    (second,) = torch.autograd.grad(first.square().sum(), edges)
    assert torch.isfinite(second).all()


def test_a_faint_edge_is_next_to_none_and_a_whole_one_is_an_edge():
    made = layer()
    features = torch.randn(1, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).double()[None]
    faint = torch.tensor([[0, 1, 1e-9], [1, 0, 0], [1e-9, 0, 0]]).double()[None]
    torch.testing.assert_close(made(features, faint), made(features, whole), rtol=1e-7, atol=1e-7)
