"""The amortised inverter: its projection, the clients it learns from, and what it rebuilds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from invertigo import attacks, data, models
from invertigo.attacks.amortised import attack as amortised
from invertigo.attacks.amortised.clients import simulated_updates
from invertigo.attacks.amortised.inverter import matched_error, ridge
from invertigo.attacks.amortised.sketch import Sketch
from invertigo.domains import Images
from invertigo.federation import observe, train_locally
from invertigo.federation.functional import simulating
from invertigo.models import memory
from invertigo.types import AdversaryView, Batch, InvalidValueError, LocalTraining, Task

PARAMETERS = {"weight": torch.zeros(5, 7), "bias": torch.zeros(5)}


def digits_task() -> tuple[Task, Batch, Batch]:
    """A network of digits, one private digit, and public ones."""
    digits = data.load("digits", limit=400)
    model = models.build(
        "mlp", input_shape=(1, 8, 8), num_classes=10, generator=torch.Generator().manual_seed(0), hidden=(24,)
    )
    task = Task(model, cross_entropy, Images((1, 8, 8)), 10)
    return task, digits.batch([0]), digits.batch(slice(1, None))


@given(seed=st.integers(0, 1000))
def test_a_sketch_is_a_linear_map_with_one_signed_one_a_column(seed):
    sketch = Sketch.draw(PARAMETERS, 11, torch.Generator().manual_seed(seed))
    units = torch.eye(40)
    matrix = sketch({"weight": units[:, :35].unflatten(1, (5, 7)), "bias": units[:, 35:]})
    assert ((matrix != 0).sum(1) == 1).all()
    assert set(matrix[matrix != 0].tolist()) <= {1.0, -1.0}
    vectors = torch.randn(3, 40, generator=torch.Generator().manual_seed(seed))
    found = sketch({"weight": vectors[:, :35].unflatten(1, (5, 7)), "bias": vectors[:, 35:]})
    torch.testing.assert_close(found, vectors @ matrix)


def test_sketches_keep_inner_products_on_average():
    a, b = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    named = [{"weight": v[None, :35].unflatten(1, (5, 7)), "bias": v[None, 35:]} for v in (a, b)]
    products = []
    for seed in range(400):
        sketch = Sketch.draw(PARAMETERS, 16, torch.Generator().manual_seed(seed))
        products.append((sketch(named[0]) @ sketch(named[1]).T).item())
    spread = torch.tensor(products).std() / 400**0.5
    assert abs(torch.tensor(products).mean() - a @ b) < 4 * spread


@pytest.mark.parametrize(
    "local",
    [LocalTraining(), LocalTraining(sends="difference", batch_size=2, epochs=2)],
    ids=["gradient", "difference"],
)
def test_simulated_clients_send_what_real_ones_send(local):
    task, _, public = digits_task()
    seen = observe(task, public.select(slice(0, 4)), local, level=4, public=public)
    fields = {name: tensor[:12].unflatten(0, (3, 4)) for name, tensor in public.fields.items()}
    with simulating(task.model, local.mode):
        found = simulated_updates(seen, fields, generator=torch.Generator())
    for client in range(3):
        real = train_locally(task, public.select(slice(4 * client, 4 * client + 4)), local)
        for name, tensor in real.tensors.items():
            torch.testing.assert_close(found[name][client], tensor, rtol=1e-4, atol=1e-6)


def test_informed_clients_use_the_defense():
    task, private, public = digits_task()
    local = LocalTraining()
    seen = observe(task, private, local, level=4, public=public)
    first = next(iter(seen.parameters))
    mask = torch.zeros_like(seen.parameters[first])
    view = AdversaryView(
        "all of it",
        visible={first: mask},
        noise_std=dict.fromkeys(seen.parameters, 0.5),
        surrogate=lambda update: {name: 3 * tensor for name, tensor in update.items()},
        draw=lambda fields, generator: {**fields, "images": torch.zeros_like(fields["images"])},
    )
    fields = {name: tensor[:300][:, None] for name, tensor in public.fields.items()}
    with simulating(task.model, local.mode):
        found = simulated_updates(seen.informed(view), fields, generator=torch.Generator().manual_seed(0))
    assert not found[first].any()
    last = list(seen.parameters)[-1]
    black = Batch({"images": torch.zeros(1, 1, 8, 8), "labels": public["labels"][:1]})
    clean = 3 * train_locally(task, black, local).tensors[last]
    same = found[last][public["labels"][:300] == public["labels"][0]]
    assert (same - clean).std().item() == pytest.approx(0.5, rel=0.15)
    assert (same.mean(0) - clean).abs().max() < 4 * 0.5 / len(same) ** 0.5


def test_the_order_of_a_rebuilt_batch_means_nothing():
    truth = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert matched_error(truth[:, [2, 0, 1]], truth).max() < 1e-12
    assert matched_error(truth.roll(1, 0), truth).min() > 0.01


def test_the_ridge_is_as_strong_as_held_out_clients_need():
    draw = torch.Generator().manual_seed(0)
    inputs, noise = torch.randn(60, 80, generator=draw), torch.randn(60, 3, generator=draw)
    truth, held = torch.randn(80, 3, generator=draw), torch.randn(200, 80, generator=draw)
    useless = ridge(inputs, noise, held, torch.randn(200, 3, generator=draw))
    assert useless.norm() < 0.1 * torch.linalg.lstsq(inputs, noise).solution.norm()
    found = ridge(inputs, inputs @ truth, held, held @ truth)
    best = min(
        (held @ (inputs.T @ torch.linalg.solve(inputs @ inputs.T + s * torch.eye(60), inputs @ truth)) - held @ truth)
        .square()
        .mean()
        for s in (1e-4, 1e-2, 1.0, 10.0, 100.0)
    )
    assert (held @ found - held @ truth).square().mean() < 1.05 * best


def test_an_update_that_tells_nothing_gives_no_more_than_the_mean_image():
    task, private, public = digits_task()
    seen = observe(task, private, LocalTraining(), level=4, public=public)
    blind = AdversaryView("all hidden", visible={name: torch.zeros_like(p) for name, p in seen.parameters.items()})
    few = replace(seen, knowledge=replace(seen.knowledge, public=public.select(slice(0, 60)))).informed(blind)
    found = attacks.reconstruct(few, "amortised_inverter", iterations=40, sketch=64, hidden=64)
    alike = public["images"][:60][public["labels"][:60] == private["labels"][0]]
    spread = alike.var(0, correction=0).mean()
    assert found.objective > 0.5 * spread
    assert (found.fields["images"] - alike.mean(0)).square().mean() < 0.3 * spread


def test_it_rebuilds_a_digit_it_has_never_seen():
    task, private, public = digits_task()
    seen = observe(task, private, LocalTraining(), level=4, public=public)
    found = attacks.reconstruct(seen, "amortised_inverter", iterations=200, clients=24, sketch=256, hidden=128)
    error = (found.fields["images"] - private["images"]).square().mean()
    mean = (public["images"].mean(0) - private["images"]).square().mean()
    assert error < 0.6 * mean
    assert found.stopped == "schedule"
    assert not found.labels_inferred


def test_several_pictures_of_one_update_come_back():
    task, _, public = digits_task()
    private = public.select([5, 9])
    seen = observe(task, private, LocalTraining(), level=4, public=public.select(slice(20, None)))
    found = attacks.reconstruct(seen, "amortised_inverter", iterations=60, sketch=128, hidden=64)
    assert found.fields["images"].shape == (2, 1, 8, 8)


def test_a_process_trains_once_for_one_client_and_the_bits_do_not_tell(monkeypatch):
    task, private, public = digits_task()
    attack = attacks.AmortisedInverter(iterations=20, sketch=64, hidden=32)
    seen = observe(task, private, LocalTraining(), level=4, public=public)
    trained = []
    new = amortised.trained_inverter
    monkeypatch.setattr(amortised, "trained_inverter", lambda *a, **k: trained.append(1) or new(*a, **k))

    def run(observation):
        return attack.reconstruct(observation, generator=torch.Generator().manual_seed(3)).fields["images"]

    same = int((public["labels"] == private["labels"][0]).nonzero()[0, 0])
    memory.forget()
    first = run(seen)
    again = run(seen)
    other = run(observe(task, public.select([same]), LocalTraining(), level=4, public=public))
    assert len(trained) == 1
    memory.forget()
    assert torch.equal(first, again)
    assert torch.equal(first, run(seen))
    assert not torch.equal(first, other)
    informed = seen.informed(AdversaryView("noise", noise_std=dict.fromkeys(seen.parameters, 0.1)))
    run(informed)
    assert len(trained) == 3


def test_an_inverter_cut_short_is_not_kept():
    task, private, public = digits_task()
    attack = attacks.AmortisedInverter(iterations=40, sketch=64, hidden=32)
    seen = observe(task, private, LocalTraining(), level=4, public=public)
    memory.forget()
    cut = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0), progress=lambda tick: True)
    assert cut.stopped == "budget"
    whole = attack.reconstruct(seen, generator=torch.Generator().manual_seed(0))
    assert whole.stopped == "schedule"
    assert replace(attack, seconds=1e-6).reconstruct(seen, generator=torch.Generator().manual_seed(9)).trace


@pytest.mark.parametrize("name", ["iterations", "clients", "sketch", "hidden"])
def test_senseless_settings_are_refused(name):
    with pytest.raises(InvalidValueError, match=name):
        attacks.AmortisedInverter(**{name: 0})
