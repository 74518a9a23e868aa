from __future__ import annotations

import pytest
from specimens import specimen

from invertigo.auditing import Audit


@pytest.fixture(scope="session")
def leaking() -> Audit:
    return specimen()


@pytest.fixture(scope="session")
def resisting() -> Audit:
    return specimen(noise=1.2, title="A client that keeps its data")
