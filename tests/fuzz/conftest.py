"""For the long profile: no limit of time for a test; and counts, for the process that started this one."""

import json
import os
from pathlib import Path

import pytest

from tests.fuzz.profiles import COUNTS, COUNTS_FILE, is_long


def pytest_collection_modifyitems(items):
    if is_long():
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


def pytest_sessionfinish():
    if COUNTS_FILE in os.environ:
        Path(os.environ[COUNTS_FILE]).write_text(json.dumps(COUNTS), encoding="utf-8")
