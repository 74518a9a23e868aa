"""Shared by all tests: one thread, reproducible property tests, and where the public data sets are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Nothing that a test starts reports to anybody.
for switch in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
    os.environ[switch] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

# A gate must not fail at random, and a loaded machine must not fail it either.
settings.register_profile("invertigo", deadline=None, derandomize=True)
settings.load_profile("invertigo")
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with full public data sets; skips the test where there is none."""
    folder = os.environ.get("INVERTIGO_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("INVERTIGO_DATA names no folder with public data sets")
    return Path(folder)


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the run-time type checks of the tests: what a user sees who passes a value of the wrong kind."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
