"""Scores beside baselines, outcomes, intervals, leakage bounds. Nothing here knows how an attack works."""

from invertigo.evaluation.bounds import Identifiability, identifiability
from invertigo.evaluation.evaluate import Evaluation, evaluate
from invertigo.evaluation.intervals import bootstrap, paired_difference, proportion
from invertigo.evaluation.label_accuracy import count_accuracy, label_accuracy
from invertigo.evaluation.outcomes import Criteria, outcomes

__all__ = [
    "Criteria",
    "Evaluation",
    "Identifiability",
    "bootstrap",
    "count_accuracy",
    "evaluate",
    "identifiability",
    "label_accuracy",
    "outcomes",
    "paired_difference",
    "proportion",
]
