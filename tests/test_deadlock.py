"""Collectives come in one order on all replicas."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crossing import first_of


@pytest.mark.parametrize("replicas", first_of([3, 2, 4]))
def test_200_steps_of_ten_layers(replicas):
    done = subprocess.run(
        [sys.executable, "-m", "tests.deadlock_checks", str(replicas)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "200 steps"
