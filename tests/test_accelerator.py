"""What XLA makes of a step on a GPU. The programs were written by `benchmarks.accelerator --save`, without a card."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.accelerator import rows
from benchmarks.accelerator.__main__ import main
from benchmarks.accelerator.cases import SAVED_DTYPE, SAVED_SHAPE, all_cases
from benchmarks.accelerator.export import step_text
from benchmarks.accelerator.program import Traffic, fingerprint, traffic

PROGRAMS = Path(__file__).parents[1] / "benchmarks" / "accelerator" / "programs"
SAVED = [case for case in all_cases((SAVED_SHAPE,)) if case.dtype == SAVED_DTYPE]
OURS = [case for case in SAVED if case.layer == "kerasbn"]
#: Published results: of one H200, and of a described H100.
RESULTS = Path(__file__).parents[1] / "docs" / "performance" / "accelerator.json"


def program(case) -> str:
    return (PROGRAMS / f"{case.name}.hlo").read_text()


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_no_more_kernels_and_fewer_passes_than_keras(case):
    ours, keras = (traffic(program(each)) for each in (case, case._replace(layer="keras")))
    size = 4 * math.prod(case.shape)
    assert ours.kernels <= keras.kernels and ours.loops == 0
    assert (ours.read + ours.written) / size < 8.1 < (keras.read + keras.written) / size


@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_the_programs_are_of_the_steps_of_today(case):
    index = json.loads((PROGRAMS / "index.json").read_text())
    for package in ("tensorflow", "keras"):
        if index[package] != version(package):
            pytest.skip(f"the programs were written with {package} {index[package]}")
    found = fingerprint(step_text(case))
    assert found == index["steps"][case.name], "The kernels changed: run python -m benchmarks.accelerator --save"


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.name)
def test_a_step_has_no_loop(case):
    """Whose condition depends on data, so that the host would have to wait for it."""
    assert "stablehlo.while" not in step_text(case)


TEXT = """HloModule m

%fused (a: f32[100,8], b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(1)
  %a = f32[100,8]{1,0} parameter(0)
  %view = f32[800]{0} bitcast(%a)
  %slice = f32[8]{0} slice(%view), slice={[0:8]}
  ROOT %sum = f32[8]{0} add(%slice, %b)
}

%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %copy = f32[8]{0} copy(%p)
}

%condition (p: f32[8]) -> pred[] {
  %p = f32[8]{0} parameter(0)
  ROOT %less = pred[] fusion(%p), kind=kLoop, calls=%fused_2
}

%fused_2 (p: f32[8]) -> pred[] {
  %p = f32[8]{0} parameter(0)
  ROOT %q = pred[] custom-call(%p)
}

ENTRY %main (x: f32[100,8], y: f32[8]) -> f32[8] {
  %x = f32[100,8]{1,0} parameter(0)
  %y = f32[8]{0} parameter(1)
  %fusion = f32[8]{0} fusion(%x, %y), kind=kLoop, calls=%fused
  ROOT %while = f32[8]{0} while(%fusion), condition=%condition, body=%body
}
"""


def test_traffic():
    """Of an operand of which a slice is read it is the slice; of a loop, one iteration and its condition twice."""
    first, body, condition = Traffic(1, 0, 64, 32), Traffic(1, 0, 32, 32), Traffic(2, 0, 64, 2)
    assert traffic(TEXT) == first + body + condition + Traffic(loops=1)


def test_published_results():
    """The goals that hold of the full table; docs/performance.md says which do not."""
    content = json.loads(RESULTS.read_text())
    compiled = {r["file"]: r for r in content["compiled"]}
    for case in all_cases():
        if case.layer != "kerasbn":
            continue
        ours, keras = (compiled[f"{each.name}.mlir"] for each in (case, case._replace(layer="keras")))
        passes = [(r["read"] + r["written"]) / math.prod(case.shape) for r in (ours, keras)]
        assert passes[0] < 1.002 * passes[1] and ours["loops"] == 0
        assert ours["kernels"] <= keras["kernels"] + (case.shape == (256, 1024))
        assert ours["temporary"] < keras["temporary"] + 1e5
    table = rows(content)
    assert len(table) == 1 + len(all_cases()) // 2 and "nan" not in " ".join(table[-1])


def test_a_file_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        main(["--timed", "nowhere.jsonl"])
    assert "--timed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_on_card_runs_on_a_cpu(tmp_path):
    from benchmarks.accelerator import export

    export.write_steps([case for case in all_cases(((256, 8),)) if case.dtype == "float32"], tmp_path)
    command = [sys.executable, "-m", "benchmarks.accelerator.on_card", str(tmp_path), str(tmp_path / "out.jsonl")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, "--seconds", "0.01"], check=True, timeout=300, env=environment)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    ours = [r for r in records if r["what"] == "kerasbn"]
    assert len(ours) == 2 and max(max(r["errors"].values()) for r in ours) < 1e-5
