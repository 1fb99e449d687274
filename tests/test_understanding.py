"""The example after Bjorck et al.: what it trains and writes, that it goes on, and the arithmetic of its tables."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples import measured
from examples.accelerate.data import Images, load
from examples.measured import Measured
from examples.understanding import __main__ as command
from examples.understanding import claims, looking, report, results, training
from examples.understanding.augmentation import mirror_and_shift
from examples.understanding.network import resnet
from examples.understanding.results import Losses, Moments, Search
from examples.understanding.step import Step
from kerasbn.monitors import activation_statistics

TINY = ["--steps", "4", "--every", "2", "--learning-rates", "0.1", "1e9", "--normalized", "none", "--test-images", "50"]
TINY += ["--depths", "8", "--search-steps", "4", "--trained-steps", "1", "--batches", "2", "--resnet", "8"]
TINY += ["--seeds", "1", "--batch-size", "16"]
FILES = ["depth.json", "divergence.json", "rates.json", "step_size.json"]
FIGURES = ["channels.png", "depth.png", "divergence.png", "rates.png", "step_size.png"]
COMMON = {"dataset": "digits", "batch_size": 16}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All parts, measured in one go by the command."""
    out = tmp_path_factory.mktemp("understanding") / "whole"
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out


def stored(out, part):
    return json.loads((out / f"{part}.json").read_text())["runs"]


@pytest.mark.slow
def test_what_it_writes(whole):
    assert sorted(path.name for path in whole.iterdir()) == sorted([*FILES, *FIGURES, "table.md"])
    dead, healthy = stored(whole, "rates")
    assert healthy["network"] == "none_0.1" and healthy["steps"] == [2, 4] and healthy["diverged_at"] is None
    assert dead["network"] == "none_1e+09" and dead["diverged_at"] is not None
    searched = {run["network"]: run for run in stored(whole, "depth")}
    assert set(searched) == {"all_8", "none_8"}
    for run in searched.values():
        stable = [rate for rate, stable in run["trials"] if stable]
        assert run["rate"] == max(stable, default=0)
    grid = results.StepSize.read(whole).settings.grid
    for run in stored(whole, "step_size"):
        assert [np.shape(run["relative"][stage]) for stage in claims.STAGES] == [(2, len(grid))] * 2
        assert all(abs(row[0] - 1) < 0.01 for row in run["relative"]["initial"])  # a step of 1e-5 is next to none
    assert [run["network"] for run in stored(whole, "divergence")] == ["none", "all", "all_own"]


@pytest.mark.slow
def test_a_step_that_diverges_is_followed_through_the_layers(whole):
    plain, same, own = stored(whole, "divergence")
    assert plain["step_size"] == plain["explodes_at"] == same["step_size"]
    assert own["step_size"] == own["explodes_at"] == same["explodes_at"]
    for run in (plain, own):
        assert run["relative"][0] == 1 and run["relative"][-1] > results.DIVERGENCE
        assert len(run["variance"]) == 11 and len(run["variance"][0]) == 7  # convolutions of the longest path
    layers = results.Divergence.read(whole).layers
    assert layers == [1, 3, 6] and list(plain["channel_variances"]) == ["1", "3", "6"]
    for layer in layers:  # the mean over channels is what is there for each layer, to the digits that are kept
        of_channels = np.mean(plain["channel_variances"][str(layer)], axis=1)
        np.testing.assert_allclose(of_channels, np.array(plain["variance"])[:, layer - 1], rtol=0.01)


@pytest.mark.slow
def test_the_moments_before_the_step_are_those_of_the_monitor(tmp_path):
    digits = load("digits")
    settings = results.DivergenceSettings(**COMMON, depth=8, trained_steps=1, parts=1)
    entry = looking.moments(digits, results.Divergence(tmp_path, settings), "none", 0)
    model = training.look_at(settings, "none", (8, 8, 1), 0)
    training.train_a_little(model, digits, settings, 0)
    ((x, _),) = training.mini_batches(digits, 16, 1, 0)
    names = looking.convolutions(model)
    assert names == ["stem", *(f"b{block}_conv_{i}" for block in (1, 2, 3) for i in (1, 2))]
    expected = [each["deviation"] ** 2 for each in activation_statistics(model, x, names).values()]
    np.testing.assert_allclose(entry.variance[0], [each.mean() for each in expected], rtol=1e-3)


@pytest.mark.slow
def test_nothing_is_measured_twice(whole, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    for module, name in ((training, "train"), (looking, "search"), (looking, "losses"), (looking, "moments")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it was measured again"))
    assert command.main([*TINY, "--out", str(whole)]) == 0
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert "no BN  1e+09" in capsys.readouterr().out


@pytest.mark.slow
def test_it_goes_on_with_what_is_missing(whole, tmp_path, monkeypatch):
    """All but the last network of one part, as a kill leaves it."""
    content = json.loads((whole / "depth.json").read_text())
    last = content["runs"].pop()
    (tmp_path / "depth.json").write_text(json.dumps(content))
    asked = []

    def search(images, found, name, seed):
        asked.append((name, seed))
        return Search(**last)

    monkeypatch.setattr(looking, "search", search)
    assert command.main([*TINY, "--only", "depth", "--out", str(tmp_path)]) == 0
    assert asked == [(last["network"], 0)] and stored(tmp_path, "depth") == stored(whole, "depth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.json", "depth.png", "table.md"]


@pytest.mark.slow
def test_report_needs_the_json_only(whole, tmp_path, capsys):
    for name in FILES:
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    assert report.main([str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted([*FIGURES, "table.md"])
    printed = capsys.readouterr().out
    assert "without normalization, 0.1 diverges" in printed
    assert "without normalization, 0.003 diverges" not in printed  # it was not tried
    assert "| no BN | 1e+09 | 1 | diverged at step" in (tmp_path / "report" / "table.md").read_text()


@pytest.mark.slow
def test_other_settings_of_one_part_are_refused_and_nothing_is_lost(whole, capsys):
    before = {name: (whole / name).read_bytes() for name in FILES}
    assert command.main([*TINY, "--search-steps", "5", "--out", str(whole)]) == 2
    assert "depth.json has results of other settings: steps (there 4, asked for 5)" in capsys.readouterr().err
    assert {name: (whole / name).read_bytes() for name in FILES} == before


def test_a_step_by_hand():
    """Softmax of two classes, on two examples: gradient and loss are known, and the weights come back."""
    zeros = keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), zeros])
    x, y = np.array([[1.0], [3.0]], "float32"), np.array([0, 1], "int32")
    # At zero both classes have 1/2: dloss/dw0 = mean((1/2 - [y = 0]) x) = (-1/2 + 3/2) / 2 = 1/2, and w1 the opposite.
    with Step(model) as step:
        assert step.along(x, y) == pytest.approx(math.log(2))
        for size in (2.0, 0.5, 0.0):
            difference = -size * x[:, 0]  # logit 0 minus logit 1
            expected = np.mean(np.log1p(np.exp(np.where(y == 0, -difference, difference))))
            assert step.to(size) == pytest.approx(expected / math.log(2), rel=1e-5)
    assert not model.get_weights()[0].any()


def test_a_step_leaves_moving_statistics_alone():
    model = resnet(8, "all", (8, 8, 1))
    before = model.get_weights()
    digits = load("digits")
    with Step(model) as step:
        step.along(digits.x_train[:16], digits.y_train[:16])
        assert step.to(0.1) != 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_weight_decay_is_half_the_squares_of_all_kernels():
    model = resnet(8, "last", (8, 8, 1), weight_decay=0.01)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    squares = sum(float(np.sum(np.square(kernel))) for kernel in kernels)
    assert len(kernels) == 10 and float(sum(model.losses)) == pytest.approx(0.005 * squares, rel=1e-5)
    assert not resnet(8, "none", (8, 8, 1)).losses


def test_mirrored_and_shifted_images_are_parts_of_the_larger_ones():
    images = np.random.default_rng(0).random((64, 6, 6, 3)).astype("float32")
    found = mirror_and_shift(tf.constant(images), tf.constant([3, 7])).numpy()
    seen = set()
    for image, result in zip(images, found, strict=True):
        margin = np.pad(image, [(4, 4), (4, 4), (0, 0)], constant_values=0.5)
        mirrored = np.pad(image[:, ::-1], [(4, 4), (4, 4), (0, 0)], constant_values=0.5)
        where = [
            (name, i, j)
            for name, larger in (("as it is", margin), ("mirrored", mirrored))
            for i in range(9)
            for j in range(9)
            if np.array_equal(larger[i : i + 6, j : j + 6], result)
        ]
        assert len(where) == 1
        seen |= set(where)
    assert {name for name, _, _ in seen} == {"as it is", "mirrored"}
    assert {i for _, i, _ in seen} == {j for _, _, j in seen} == set(range(9)) and len(seen) > 40


def test_images_are_augmented_alike_wherever_training_starts():
    images = Images(*(np.random.default_rng(0).random((20, 4, 4, 1)).astype("float32"), np.arange(20)) * 2)

    def read(first, last, seed=1):
        order = tf.data.Dataset.range(20).shuffle(20, seed=0)
        batches = measured.batches(images, order, 4, first, mirror_and_shift, seed)
        return [x.numpy() for x, _ in batches.take(last - first)]

    every = read(0, 12)
    np.testing.assert_array_equal(every[7:], read(7, 12))
    assert not np.array_equal(every[0], read(0, 1, seed=2)[0])


def test_what_a_short_training_sees_is_drawn_with_its_labels():
    images = Images(np.arange(50.0), np.arange(50), np.zeros(0), np.zeros(0))
    few = training.drawn(images, 20, seed=1)
    assert len(set(few.x_train)) == 20 and np.array_equal(few.x_train, few.y_train)
    assert set(few.x_train) != set(training.drawn(images, 20, seed=2).x_train)
    assert training.drawn(images, 50, seed=1) is images


def rates_of(tmp_path, accuracies):
    """Two seeds a network: a number is the final accuracy of both, `None` a divergence."""
    settings = results.RatesSettings(
        **COMMON, depth=8, steps=20, every=10, normalized=("all", "none", "last"), learning_rates=(0.1, 0.003, 0.0001)
    )
    runs = [
        Measured(name, seed, [], [], [], [], 3 + seed)
        if value is None
        else Measured(name, seed, [10, 20], [0.1, value], [1.0, 1.0], [1.0, 2.0])
        for name, value in accuracies.items()
        for seed in (0, 1)
    ]
    return results.Rates(tmp_path, settings, runs)


PAPERS = {"all_0.1": 0.93, "all_0.003": 0.905, "all_0.0001": 0.815, "none_0.1": None, "none_0.003": None}
PAPERS |= {"none_0.0001": 0.82, "last_0.1": 0.9}


def test_the_papers_rates_hold_in_every_claim(tmp_path):
    rows = claims.of_rates(rates_of(tmp_path, PAPERS))
    assert len(rows) == 6 and {row[-1] for row in rows} == {"yes"}
    assert rows[0][2] == "diverged at step 3 to 4" and rows[2][2] == "93.0% > 90.5% > 81.5%"


@pytest.mark.parametrize(
    ("change", "row", "here"),
    [
        ({"none_0.1": 0.9}, 0, "90.0% ± 0.0%"),
        ({"all_0.003": 0.95}, 2, "93.0%, 95.0%, 81.5%"),
        ({"none_0.0001": 0.9}, 3, "81.5% and 90.0%"),
        ({"none_0.003": 0.94}, 4, "93.0% and 94.0%"),
        ({"last_0.1": 0.8}, 5, "80.0% and 82.0%"),
    ],
)
def test_what_contradicts_the_paper_is_said(tmp_path, change, row, here):
    rows = claims.of_rates(rates_of(tmp_path, PAPERS | change))
    assert rows[row][2:] == [here, "no"]


def test_a_network_that_only_guesses_has_failed(tmp_path):
    rows = claims.of_rates(rates_of(tmp_path, PAPERS | {"none_0.1": 0.1}))
    assert rows[0][2:] == ["10.0% ± 0.0%", "yes"]


def test_largest_rates_by_hand(tmp_path):
    settings = results.DepthSettings(**COMMON, depths=(8, 14), steps=20)
    rates = {"all_8": (1.0, 4.0), "none_8": (0.1, 0.1), "all_14": (2.0, None), "none_14": (0.05, 0.0)}
    runs = [Search(name, seed, rate) for name, both in rates.items() for seed, rate in enumerate(both)]
    found = results.Depth(tmp_path, settings, runs)
    summary = found.summary()
    assert summary["8"]["ratio"]["mean"] == 20 and summary["8"]["all"]["mean"] == 2
    assert summary["8"]["ratio"]["low"] < 1  # two seeds say little
    assert summary["14"]["ratio"] is None and summary["14"]["all"]["mean"] is None
    (_, eight, fourteen) = report.depth_rows(found)
    assert eight[0] == "8" and fourteen[2:] == ["2 to above", "0 to 0.05", "-"]
    assert [row[-1] for row in claims.of_depth(found)] == ["no"]
    grown = [Search(r.network, r.seed, r.rate) for r in runs[:4]]
    grown += [Search("all_14", s, 2.0 + s) for s in (0, 1)] + [Search("none_14", s, 0.001 + s * 0.0005) for s in (0, 1)]
    judged = claims.of_depth(results.Depth(tmp_path, settings, grown))
    assert judged[2][2:] == ["0.1 at 8 layers, 0.00122 at 14", "yes"]
    assert judged[3][-1] == "unclear"  # 20 and 2000 times, but of two seeds
    found.save()
    assert results.Depth.read(tmp_path).runs == runs


def test_losses_after_a_step_by_hand(tmp_path):
    settings = results.StepSizeSettings(**COMMON, depth=8, lowest=0.01, highest=10.0, step_sizes=4)
    assert settings.grid == [0.01, 0.1, 1.0, 10.0]
    normalized, plain = [[0.9, 0.5, 0.8, 5.0]], [[0.8, 2.0, 4e3, None]]
    stages = claims.STAGES
    runs = [
        Losses(name, seed, {stage: [2.0] for stage in stages}, {stage: rows for stage in stages})
        for name, rows in (("all", normalized), ("none", plain))
        for seed in (0, 1)
    ]
    found = results.StepSize(tmp_path, settings, runs)
    summary = found.summary()
    assert [summary[f"{name}_trained"]["best_step"]["mean"] for name in ("all", "none")] == [0.1, 0.01]
    assert [summary[f"{name}_initial"]["worse_from"] for name in ("all", "none")] == [10.0, 0.1]
    assert [summary[f"{name}_initial"]["diverges_from"] for name in ("all", "none")] == [None, 1.0]
    assert found.ratio("initial")["mean"] == 10
    judged = [row[2:] for row in claims.of_step_size(found)][:4]
    assert judged == [
        ["0.1 (0.1 to 0.1)", "yes"],
        ["10 (10 to 10)", "yes"],
        ["grows from 0.1 on, 1,000 times from 1", "no"],
        ["none", "yes"],
    ]


def test_growth_by_hand(tmp_path):
    settings = results.DivergenceSettings(**COMMON, depth=8, parts=1)
    runs = [
        Moments("none", 0, 0.1, 0.1, [1.0, 2e3], [[0.0] * 2] * 2, [[1.0, 2.0], [4.0, 2e5]]),
        Moments("all", 0, 0.1, 50.0, [1.0, 0.5], [[0.0] * 2] * 2, [[1.0, 2.0], [2.0, 2.0]]),
    ]
    found = results.Divergence(tmp_path, settings, runs)
    assert [each["mean"] for each in found.summary()["none"]["growth"]] == [4, 1e5]
    assert [row[2:] for row in claims.of_divergence(found)] == [
        ["4, 1e+05 times", "yes"],
        ["2 times", "yes"],
        ["50 and 0.1", "yes"],
    ]


@pytest.mark.slow
def test_every_curve_is_named(whole, monkeypatch, tmp_path):
    shown = []

    def keep(fig):
        shown.append([sorted(ax.get_legend_handles_labels()[1]) for ax in fig.axes])

    monkeypatch.setattr(report.figures.plt, "close", keep)
    report.write(whole, tmp_path)
    rates, depth, step_size, divergence, _ = shown
    assert rates == [["rate 0.1 (1 seed)", "rate 1e+09: 1 of 1 seed diverged"]]
    assert depth == [["BN: each seed", "BN: geometric mean, 95 %", "no BN: each seed", "no BN: geometric mean, 95 %"]]
    assert all({"BN: median of 2", "no BN: median of 2"} < set(labels) for labels in step_size)
    assert any("no BN, the step at which it diverges: after" in labels for labels in divergence)
