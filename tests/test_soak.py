"""A long training in small: nothing grows, and what would grow is seen."""

import json
from dataclasses import replace

import pytest

from benchmarks import soak

READING = soak.Reading(step=0, megabytes=500.0, objects=1, threads=4, files=9, traces=3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model")
def test_two_hundred_steps(tmp_path, capsys):
    """Traces, threads and files stay; `ActivationStatistics` and `GradientStatistics` used to trace at each reading."""
    assert soak.main(["--steps", "200", "--out", str(tmp_path / "soak.json")]) == 0
    content = json.loads((tmp_path / "soak.json").read_text())
    assert content["verdict"] == "nothing grew" and "nothing grew" in capsys.readouterr().out
    assert [reading["step"] for reading in content["results"]] == list(range(10, 201, 10))
    assert len(soak.rows(content)) == 11
    steady = content["results"][5:]
    assert len({reading["traces"] for reading in steady}) == 1


def test_the_verdict_names_what_grows():
    steady = [replace(READING, step=100 * i) for i in range(40)]
    assert soak.verdict(steady) == []
    warm_up = [replace(each, megabytes=500 - 40 * (i < 10), traces=min(i, 9)) for i, each in enumerate(steady)]
    assert soak.verdict(warm_up) == []
    for name in ("threads", "files", "traces"):
        (said,) = soak.verdict([replace(each, **{name: 5 + i // 25}) for i, each in enumerate(steady)])
        assert said == f"{name} grew from 5 to 6"
    come_and_go = [replace(each, threads=4 + i % 2) for i, each in enumerate(steady)]
    assert soak.verdict(come_and_go) == []
    slowly = [replace(each, megabytes=500 + 0.8 * i) for i, each in enumerate(steady)]
    assert soak.verdict(slowly) == ["memory grew by 8.00 MB in 1,000 steps, more than 2"]
    much = [replace(each, step=10 * each.step, megabytes=500 + 2 * i) for i, each in enumerate(steady)]
    assert soak.verdict(much)[0].startswith("memory grew by 46.0 MB, more than 32")


def test_too_few_steps(capsys):
    with pytest.raises(SystemExit, match="2"):
        soak.main(["--steps", "40"])
    assert "--steps: must be at least 80" in capsys.readouterr().err
