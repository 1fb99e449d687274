"""The example of initial scales and learning rates: what it trains and writes, and the arithmetic of its table."""

import json

import numpy as np
import pytest

import kerasbn
from examples.accelerate.data import load
from examples.initialisation import __main__ as command
from examples.initialisation import report, training
from examples.initialisation.network import FILTERS, NETWORKS, build
from examples.initialisation.results import Cell, Results, Settings
from examples.initialisation.training import Trainer
from examples.measured import Measured

TINY = ["--scales", "1", "30", "--rates", "0.01", "1", "--steps", "8", "--seeds", "1"]
WRITTEN = ["heatmaps.png", "results.json", "table.md"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The grid, trained in one go by the command."""
    out = tmp_path_factory.mktemp("initialisation") / "whole"
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out


def stored(out):
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_what_it_writes(whole):
    assert sorted(path.name for path in whole.iterdir()) == WRITTEN
    runs = {run["network"]: run for run in stored(whole)["runs"]}
    assert list(runs) == [f"{n}_x{scale}_at_{rate}" for n in NETWORKS for scale in (1, 30) for rate in ("0.01", "1")]
    for run in runs.values():
        assert run["steps"] == ([] if run["diverged_at"] else [8])
        assert all(0 <= accuracy <= 1 for accuracy in run["accuracy"])


@pytest.mark.slow
def test_a_large_loss_is_no_divergence_and_an_infinite_one_is(whole):
    runs = {run["network"]: run for run in stored(whole)["runs"]}
    assert 1 <= runs["plain_x30_at_1"]["diverged_at"] <= 8
    assert runs["batch_norm_x30_at_1"]["diverged_at"] is None
    assert np.all(Results.read(whole).accuracy("plain")[0, 1, 1] == 0.1)


@pytest.mark.slow
def test_a_cell_is_the_same_alone(whole, tmp_path):
    """It depends on nothing that was trained before it: neither on weights, momenta, statistics nor the rate."""
    content = stored(whole)
    gone = ["batch_norm_x1_at_1", "batch_norm_x30_at_0.01"]
    expected = {run["network"]: run for run in content["runs"]}
    content["runs"] = [run for run in content["runs"] if run["network"] not in gone]
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert command.main([*TINY, "--out", str(tmp_path)]) == 0
    for run in stored(tmp_path)["runs"]:
        if run["network"] in gone:
            np.testing.assert_allclose(run["loss"], expected[run["network"]]["loss"], rtol=1e-3)
            np.testing.assert_allclose(run["accuracy"], expected[run["network"]]["accuracy"], atol=0.01)
        else:
            assert run == expected[run["network"]]


@pytest.mark.slow
def test_nothing_is_trained_twice(whole, monkeypatch):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    monkeypatch.setattr(training, "Trainer", lambda *_: pytest.fail("it was trained again"))
    assert command.main([*TINY, "--out", str(whole)]) == 0
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_networks():
    """Both have the same kernels for a seed, and one of them a normalization before each ReLU."""
    plain, normalized = (build(name, (8, 8, 1), 10, seed=3) for name in NETWORKS)
    found = [layer for layer in normalized.layers if isinstance(layer, kerasbn.BatchNorm)]
    assert [layer.momentum for layer in found] == [0.9] * len(FILTERS)
    assert not any(isinstance(layer, kerasbn.BatchNorm) for layer in plain.layers)
    for layer in plain.layers:
        if hasattr(layer, "kernel"):
            np.testing.assert_array_equal(layer.kernel, normalized.get_layer(layer.name).kernel)
    other = build("plain", (8, 8, 1), 10, seed=4)
    assert not np.array_equal(other.get_layer("conv_1").kernel, plain.get_layer("conv_1").kernel)


@pytest.mark.parametrize("scaled", ["all", "convolutions"])
def test_where_a_training_starts(tmp_path, monkeypatch, scaled):
    """He's weights times the scale, the rate of the cell, and no step made."""
    settings = Settings("digits", scales=(1.0, 10.0), rates=(0.5,), steps=8, batch_size=4, scaled=scaled)
    results = Results(tmp_path, settings)
    trainer = Trainer("plain", load("digits"), results)

    def look(results, run, model, *_, explosion, **__):
        expected = build("plain", (8, 8, 1), 10, seed=run.seed)
        for layer in expected.layers:
            if hasattr(layer, "kernel"):
                factor = 1.0 if layer.name == "logits" and scaled == "convolutions" else scale
                found = model.get_layer(layer.name).kernel
                np.testing.assert_allclose(found, factor * np.asarray(layer.kernel), rtol=1e-6)
        assert float(model.optimizer.learning_rate) == 0.5 and int(model.optimizer.iterations) == 0
        seen.append(run.seed)
        model.optimizer.iterations.assign(5)

    seen = []
    monkeypatch.setattr(training.measured, "train", look)
    for seed, scale in ((0, 1.0), (0, 10.0), (1, 10.0)):
        trainer.train(Cell("plain", scale, 0.5), Measured("any", seed), lambda run: None)
    assert seen == [0, 0, 1]


def made_up(network, seed, grid, scales, rates):
    """Runs with the accuracies of `grid`, ``[scale, rate]``; `None` diverged."""
    for row, scale in zip(grid, scales, strict=True):
        for accuracy, rate in zip(row, rates, strict=True):
            name = Cell(network, scale, rate).name
            if accuracy is None:
                yield Measured(name, seed, diverged_at=2)
            else:
                yield Measured(name, seed, [20], [accuracy], [1.0], [1.0])


SCALES, RATES = (0.1, 1.0, 10.0, 100.0), (0.01, 0.1)
PLAIN = [
    [[0.10, 0.10], [0.80, 0.70], [0.76, 0.20], [None, None]],
    [[0.10, 0.12], [0.60, 0.50], [0.30, 0.20], [0.58, None]],
]
NORMALIZED = [[0.86, 0.90], [0.86, 0.90], [0.85, 0.88], [0.10, 0.70]]


def results_of(folder, runs):
    return Results(folder, Settings("digits", SCALES, RATES, steps=20, batch_size=32), list(runs))


@pytest.fixture
def results(tmp_path):
    runs = [run for seed, grid in enumerate(PLAIN) for run in made_up("plain", seed, grid, SCALES, RATES)]
    runs += made_up("batch_norm", 0, NORMALIZED, SCALES, RATES)
    runs.append(Measured(Cell("batch_norm", 1.0, 0.1).name, 1, [20], [0.99], [1.0], [1.0]))  # no whole grid: not used
    return results_of(tmp_path, runs)


def test_the_table_by_hand(results):
    found = results.summary()
    plain, normalized = found["plain"], found["batch_norm"]
    assert plain["seeds"] == 2 and normalized["seeds"] == 1
    assert plain["best_accuracy"]["mean"] == pytest.approx(0.7)
    assert plain["best_scale_and_rate"] == [[1.0, 0.01], [1.0, 0.01]]
    assert plain["good"]["mean"] == pytest.approx((2 / 8 + 2 / 8) / 2)  # 0.80, 0.76; and 0.60, 0.58
    assert plain["failed"]["mean"] == pytest.approx((4 / 8 + 3 / 8) / 2)
    # From 1 to 10 is a factor of 10; with the other seed there is a gap before 0.58.
    assert plain["width_at_best_rate"]["mean"] == pytest.approx(10**0.5, rel=1e-4)
    assert normalized["width_at_best_rate"]["mean"] == pytest.approx(100) and normalized["good"]["mean"] == 6 / 8
    assert normalized["width_at_best_rate"]["low"] is None and normalized["good"]["stdev"] is None
    assert normalized["failed"]["mean"] == 1 / 8


def test_report_needs_the_json_only(results, tmp_path, monkeypatch, capsys):
    figures = []
    monkeypatch.setattr(report.plt, "close", figures.append)
    results.save()
    assert report.main([str(results.path), "--out", str(tmp_path / "report")]) == 0
    assert "without BN" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["heatmaps.png", "table.md"]
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| without BN | 2 | 70.0% ± 14.1% | 1, 0.01; 1, 0.01 | 25% ± 0% | 44% ± 9% | a factor of 3.16 (" in table
    assert "| with BN | 1 | 90.0% | 0.1, 0.1 | 75% | 12% | a factor of 100 | a factor of 100 |" in table
    (figure,) = figures
    plain, normalized = figure.axes[:2]
    assert plain.get_title() == "without BN (2 seeds)" and normalized.get_title() == "with BN (1 seed)"
    assert plain.images[0].get_clim() == normalized.images[0].get_clim() == (10, pytest.approx(90))
    texts = [text.get_text() for text in plain.texts]
    assert texts.count("diverged") == 1 and texts.count("1") == 1  # both seeds; one of the two, with 34 % as mean
    assert "34" in texts and "70" in texts


def test_a_report_of_half_a_grid_is_refused(tmp_path, capsys):
    results_of(tmp_path, list(made_up("plain", 0, PLAIN[0], SCALES, RATES))[:-1]).save()
    assert report.main([str(tmp_path)]) == 2
    assert "has the whole grid of a seed yet" in capsys.readouterr().err
