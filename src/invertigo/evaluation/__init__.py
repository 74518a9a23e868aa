"""Scores beside baselines, outcomes, intervals, leakage bounds. Nothing here knows how an attack works."""

from invertigo.evaluation.bounds import Identifiability, identifiability
from invertigo.evaluation.evaluate import Evaluation, evaluate
from invertigo.evaluation.intervals import bootstrap, paired_difference, proportion
from invertigo.evaluation.label_accuracy import count_accuracy, label_accuracy
from invertigo.evaluation.outcomes import Criteria, outcomes
from invertigo.evaluation.reader import Reader, train_reader

__all__ = [
    "Criteria",
    "Evaluation",
    "Identifiability",
    "Reader",
    "bootstrap",
    "count_accuracy",
    "evaluate",
    "identifiability",
    "label_accuracy",
    "outcomes",
    "paired_difference",
    "proportion",
    "train_reader",
]
