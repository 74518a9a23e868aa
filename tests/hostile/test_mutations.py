"""Spoilt files are refused with a reason: no traceback, no hang, no memory gone."""

import resource
import time
import zlib
from contextlib import suppress

import pytest
from files import FORMATS, mutations

from invertigo.types import InvertigoError


def check(kind: str, folder, count: int, seed: int) -> None:
    valid, read = FORMATS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, spoilt in enumerate(mutations(valid, count, seed)):
        started = time.process_time()
        with suppress(InvertigoError):  # anything else is a traceback that a user would see
            read(folder, spoilt)
        assert time.process_time() - started < 5, f"mutation {number} took too long"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "over a gibibyte was taken"


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "result"])
def test_the_valid_file_is_read(kind, tmp_path):
    valid, read = FORMATS[kind]
    read(tmp_path, valid)


@pytest.mark.parametrize("kind", FORMATS)
def test_spoilt_files_are_refused_with_a_reason(kind, tmp_path, untyped):
    check(kind, tmp_path, 40, zlib.crc32(kind.encode()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_many_spoilt_files_are_refused_with_a_reason(kind, tmp_path, untyped):
    check(kind, tmp_path, 300, 1)
