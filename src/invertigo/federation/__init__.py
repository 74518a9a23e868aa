"""A round of federated learning: local training, aggregation, and what an adversary observes of it."""

from invertigo.federation.aggregate import aggregate
from invertigo.federation.client import train_locally
from invertigo.federation.defended import per_example_gradients
from invertigo.federation.dry_run import draws_randomly
from invertigo.federation.functional import Simulation, batchnorm_statistics, functional_update, simulating
from invertigo.federation.modes import mode_matters, native_level, sensitive_layers
from invertigo.federation.observe import Round, observe, observe_round
from invertigo.federation.partition import partition
from invertigo.federation.randomness import RandomState
from invertigo.federation.replay import LayerGap, Replay, replay
from invertigo.federation.server import send
from invertigo.federation.statistics import statistics_from_buffers
from invertigo.federation.training import TrainingRun, simulate_training
from invertigo.federation.watch import Tape, watch

__all__ = [
    "LayerGap",
    "RandomState",
    "Replay",
    "Round",
    "Simulation",
    "Tape",
    "TrainingRun",
    "aggregate",
    "batchnorm_statistics",
    "draws_randomly",
    "functional_update",
    "mode_matters",
    "native_level",
    "observe",
    "observe_round",
    "partition",
    "per_example_gradients",
    "replay",
    "send",
    "sensitive_layers",
    "simulate_training",
    "simulating",
    "statistics_from_buffers",
    "train_locally",
    "watch",
]
