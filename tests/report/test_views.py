"""The setting of an audit as a reader sees it."""

from __future__ import annotations

from invertigo.auditing import load_scenario
from invertigo.report.views import facts


def test_attacks_with_settings_read_as_words() -> None:
    shown = dict(facts({"attacks": ["linear_layer", {"name": "inverting_gradients", "iterations": 200}]}))
    assert shown["attacks"] == "linear_layer, inverting_gradients (iterations 200)"


def test_only_settings_that_had_an_effect_are_shown() -> None:
    chosen = load_scenario("faces-mlp", ["data.indices=[1, 2]"])
    drawn = load_scenario("faces-mlp", ["data.indices=null", "data.count=3"])
    assert "data.count" not in dict(facts(chosen.resolved()))
    assert dict(facts(drawn.resolved()))["data.count"] == "3"
