import pytest

from invertigo.auditing.budget import Budget, parse_budget
from invertigo.types import ConfigurationError


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2m", 120), ("1.5 min", 90), ("1h", 3600), (45, 45), ("90", 90), (0.5, 0.5)]
)
def test_times_are_read(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "10 days", "nan", "1e3s"])
def test_other_texts_are_refused_with_the_value(text):
    with pytest.raises(ConfigurationError, match="budget"):
        parse_budget(text)


def test_time_unspent_by_early_runs_goes_to_later_ones():
    now = [0.0]
    budget = Budget(100.0, clock=lambda: now[0])
    assert budget.share(2, reserve=0.0) == 50
    now[0] = 10.0
    assert budget.left == 90
    assert budget.share(1, reserve=0.0) == 90
    now[0] = 200.0
    assert budget.share(1) == 0
