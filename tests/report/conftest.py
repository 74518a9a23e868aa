from __future__ import annotations

import pytest
from specimens import Specimen, specimen


@pytest.fixture(scope="session")
def leaking() -> Specimen:
    return specimen()


@pytest.fixture(scope="session")
def resisting() -> Specimen:
    return specimen(noise=1.2, title="A client that keeps its data")
