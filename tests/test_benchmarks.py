"""The benchmarks: that they run and write what they measured. How long anything takes is not tested."""

import json

import pytest

from benchmarks import kernels, models, timing


def test_interleaved_rounds():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = timing.interleaved(functions, repeats=5)
    assert {name: len(values) for name, values in times.items()} == {"a": 5, "b": 5}
    rounds = [set(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert rounds == [{"a", "b"}] * (5 + timing.WARM_UP)


def test_median_ratio_is_of_pairs():
    assert timing.median_ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3


@pytest.mark.parametrize(("benchmark", "few"), [(kernels, "SHAPES"), (models, "MODELS")], ids=["kernels", "models"])
def test_command(benchmark, few, tmp_path, capsys, monkeypatch):
    small = [(8, 3)] if few == "SHAPES" else {"MLP": models.MODELS["MLP"]}
    monkeypatch.setattr(benchmark, few, small)
    out = tmp_path / "out" / "result.json"
    benchmark.main(["--quick", "--out", str(out)])
    stored = json.loads(out.read_text())
    assert stored["machine"]["tensorflow"] and stored["results"]
    assert all(value > 0 for row in stored["results"] for value in row["milliseconds"].values())
    assert "kerasbn" in capsys.readouterr().out


def test_resnet20_is_that_of_the_paper():
    """He et al. 2016, table 6: 0.27 million parameters; here with projections instead of padding at two shortcuts."""
    assert 0.27e6 < models.resnet20(models.LAYERS["kerasbn"]).count_params() < 0.28e6
