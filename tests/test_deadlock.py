"""Collectives come in one order on all replicas."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("replicas", "ways"),
    [
        (2, ["uncompiled"]),
        *(pytest.param(count, ["compiled", "uncompiled"], marks=pytest.mark.slow) for count in (2, 3, 4)),
    ],
)
def test_100_steps_of_ten_layers(replicas, ways):
    done = subprocess.run(
        [sys.executable, "-m", "tests.deadlock_checks", str(replicas), *ways],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-len(ways) :] == [f"100 steps {way}" for way in ways]
