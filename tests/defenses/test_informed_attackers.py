"""Who knows how an update was noised, clipped, pruned or rounded rebuilds no less than who does not."""

import pytest

from invertigo import defenses
from invertigo.attacks import infer_labels

DEFENSES = [
    defenses.GaussianNoise(std=0.01),
    defenses.TopK(k=0.1),
    defenses.PercentilePruning(percentile=90.0),
    defenses.Sign(),
    defenses.Quantise(bits=4),
    defenses.QSGD(levels=15),
    defenses.UserDP(clip=1.0, noise_multiplier=0.005),
    defenses.DPSGD(clip=1.0, noise_multiplier=0.01),
]


@pytest.mark.slow
@pytest.mark.parametrize("defense", DEFENSES, ids=lambda defense: defense.name)
def test_knowing_the_defense_never_hurts(attacked, defense):
    if defense.name in ("user_dp", "dp_sgd"):
        pytest.importorskip("opacus", reason="pip install 'invertigo[dp]'")
    naive, informed = attacked(defense)
    assert informed >= naive - 0.3


@pytest.mark.parametrize("defense", DEFENSES[:6], ids=lambda defense: defense.name)
def test_the_label_is_still_read(released, defense):
    for seed in range(3):
        _, batch, round_ = released(defense, count=1, seed=seed)
        seen = round_.observation
        for observation in (seen, seen.informed(defense.adversary_view(seen))):
            unlabelled = type(seen.knowledge)(num_examples=1, view=observation.knowledge.view)
            hidden = type(seen)(
                observation.task, seen.parameters, seen.buffers, observation.update, seen.local, unlabelled
            )
            assert infer_labels(hidden).labels.tolist() == batch["labels"].tolist()
