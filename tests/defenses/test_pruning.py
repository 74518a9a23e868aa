"""Pruning keeps exactly what it says, costs the bytes it says, and hides little from who reads its zeros."""

import importlib.util
import sys
from pathlib import Path
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import invertigo
from invertigo import defenses
from invertigo.defenses.entries import largest
from invertigo.types import InvalidValueError


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(0, 40))
def test_largest_counts_exactly_and_ties_go_to_the_first(values, keep):
    tensor = torch.tensor(values, dtype=torch.float32)
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:keep]
    assert largest(tensor, keep).nonzero().flatten().tolist() == sorted(order)


@pytest.mark.parametrize("k", [0.01, 0.1, 0.5, 1.0])
def test_top_k_keeps_that_share_of_all_entries(sent_and_raw, k):
    sent, raw, trace = sent_and_raw(defenses.TopK(k=k))
    before, after = (torch.cat([t.flatten() for t in u.values()]) for u in (raw, sent))
    keep = max(round(k * len(before)), 1)
    assert trace.facts["kept"] == keep / len(before)
    assert int(after.count_nonzero()) == min(keep, int(before.count_nonzero()))
    kept = after != 0
    assert torch.equal(after[kept], before[kept])
    assert before[~kept].abs().max() <= before[kept].abs().min() if k < 1 else torch.equal(before, after)


def test_percentiles_are_counted_in_every_layer(sent_and_raw):
    sent, raw, trace = sent_and_raw(defenses.PercentilePruning(percentile=90.0))
    kept = 0
    for name, tensor in raw.items():
        expected = tensor.numel() - int(0.9 * tensor.numel())
        kept += expected
        assert int(sent[name].count_nonzero()) == min(expected, int(tensor.count_nonzero()))
        left = sent[name] != 0
        if left.any() and not left.all():
            assert tensor[~left].abs().max() <= tensor[left].abs().min()
    assert trace.facts["kept"] == kept / sum(t.numel() for t in raw.values())


def test_bytes_are_values_and_their_places():
    update = {"a": torch.zeros(1000), "b": torch.zeros(24)}
    update["a"][:8] = 1.0
    assert defenses.TopK().wire_bytes(update) == 8 * 4 + 10  # 8 indices of 10 bits
    update["a"][:500] = 1.0
    assert defenses.TopK().wire_bytes(update) == 500 * 4 + 128  # one bit an entry
    update["a"][:], update["b"][:] = 1.0, 1.0
    assert defenses.TopK().wire_bytes(update) == 1024 * 4


def test_removed_entries_count_only_beyond_what_was_kept(observed):
    defense = defenses.TopK(k=0.1)
    seen = observed(defense, examples=1)[0].observation
    sent, view = seen.update.tensors, defense.adversary_view(seen)
    smallest = min(float(t[t != 0].abs().min()) for t in sent.values() if t.any())
    made = view.surrogate({k: torch.full_like(t, 2 * smallest)[None] for k, t in sent.items()})
    silent = view.surrogate({k: torch.full_like(t, 0.9 * smallest)[None] for k, t in sent.items()})
    for name, tensor in sent.items():
        hidden = tensor == 0
        assert torch.allclose(made[name][0][hidden], torch.tensor(smallest, dtype=tensor.dtype))
        assert torch.allclose(made[name][0][~hidden], torch.tensor(2 * smallest, dtype=tensor.dtype))
        assert not silent[name][0][hidden].any()


@pytest.mark.parametrize("k", [0.0, -0.1, 1.5, 1000.0])
def test_a_share_outside_its_range_is_refused(k):
    with pytest.raises(InvalidValueError, match="share of entries that leave the client"):
        defenses.TopK(k=k)


@pytest.mark.parametrize("percentile", [-1.0, 100.0])
def test_a_percentile_outside_its_range_is_refused(percentile):
    with pytest.raises(InvalidValueError, match="withheld"):
        defenses.PercentilePruning(percentile=percentile)


def test_who_reads_the_zeros_rebuilds_more(observed, psnr):
    defense = defenses.TopK(k=0.1)
    seen = observed(defense, examples=1)[0].observation
    attack = {"iterations": 300, "total_variation": 1e-3, "seed": 1}
    naive, informed = (
        psnr(invertigo.reconstruct(o, "inverting_gradients", **attack))
        for o in (seen, seen.informed(defense.adversary_view(seen)))
    )
    assert informed > naive + 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("top_k", {"k": 0.1}), ("percentile_pruning", {"percentile": 90.0})])
def test_the_largest_tenth_is_nearly_as_good_as_all(name, settings):
    """On the network and the pictures of the table."""
    path = Path(__file__).parents[2] / "benchmarks" / "informed_attackers.py"
    spec = importlib.util.spec_from_file_location("informed_attackers", path)
    table = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = table
    spec.loader.exec_module(table)
    images = table.pictures(4)
    undefended, _ = table.measure(table.UNDEFENDED, images)
    _, informed = table.measure(table.Row(name, settings), images)
    assert mean(informed) > mean(undefended) - 1.5
