from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))  # the audits made by hand live there

from specimens import specimen

from invertigo.auditing import Audit
from invertigo.report import save


@pytest.fixture(scope="session")
def leaking() -> Audit:
    return specimen()


@pytest.fixture(scope="session")
def resisting() -> Audit:
    return specimen(noise=1.2, title="A client that keeps its data")


@pytest.fixture(scope="session")
def results(leaking: Audit, resisting: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results `leaks` and `resists`."""
    folder = tmp_path_factory.mktemp("results")
    save(leaking, folder / "leaks")
    save(resisting, folder / "resists")
    return folder
