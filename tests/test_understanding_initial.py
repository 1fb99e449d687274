"""The example of networks at initialisation: its arithmetic by hand, what it writes, and that it can be killed."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.accelerate.data import Images
from examples.understanding import initial_figures, initial_measurements, initial_report
from examples.understanding import initialisation as command
from examples.understanding.initial_gradients import PARTS, at_outputs, gradients, one_sidedness, terms
from examples.understanding.initial_jacobians import (
    ACTIVATIONS,
    KINDS,
    RANKS,
    WEIGHTS,
    initializer,
    layer_jacobians,
    random_products,
    spectrum,
    stack_jacobians,
)
from examples.understanding.initial_layers import blocks, layer_name, layers_by_depth, middle, table_layers
from examples.understanding.initial_measurements import measure_resnet
from examples.understanding.initial_numbers import significant
from examples.understanding.initial_results import Results, Settings
from examples.understanding.network import NORMALIZED, resnet
from kerasbn.monitors import Gradients, activation_statistics

TINY = ["--depth", "8", "--initializers", "he_normal", "--seeds", "1", "--batch-size", "8", "--matrix-size", "8"]
TINY += ["--width", "3", "--stack-batch", "8"]
NAMES = [f"resnet/{each}/he_normal" for each in NORMALIZED]
NAMES += ["matrices", *(f"stack/{activation}/{weights}" for activation in ACTIVATIONS for weights in WEIGHTS)]
WRITTEN = sorted(["initial_table.md", "initialisation.json", *initial_figures.FIGURES])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All measurements, made in one go by the command."""
    out = tmp_path_factory.mktemp("initialisation") / "whole"
    assert command.main([*TINY, "--out", str(out)]) == 0
    return out


def stored(out):
    return json.loads((out / "initialisation.json").read_text())


def settings(**others):
    given = {"dataset": "digits", "depth": 8, "batch_size": 8, "images": 16, "matrix_size": 8}
    return Settings(**(given | {"width": 3, "stack_batch": 8, "counts": (1, 3)} | others))


def some_images(n=32):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(n, 8, 8, 1)).astype("float32"), rng.integers(0, 10, n).astype("int32")
    return Images(x, y, x[:0], y[:0])


def test_layers_are_those_of_the_paper():
    assert (middle(110), layer_name(55), table_layers(110)) == (55, "b27_conv_2", [18, 54, 90])
    model = resnet(14, "none", (8, 8, 1))
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    longest = [name for name in names if "shortcut" not in name]
    assert longest == [layer_name(number) for number in range(1, 14)] and blocks(14) == [1, 2, 3, 4, 5, 6]
    assert layers_by_depth(14) == list(range(2, 14)) and layers_by_depth(110)[::11] == [2, 109]


def test_significant_digits():
    assert significant(np.array([[1234.56, 1e-9], [np.nan, np.inf]]), 3) == [[1230.0, 1e-9], [None, None]]


@pytest.mark.parametrize("stride", [1, 2])
def test_terms_by_hand(stride):
    """Each ``d_bxy`` in turn, with the padding of TensorFlow for sizes that strides divide."""
    rng = np.random.default_rng(stride)
    layer = keras.layers.Conv2D(2, 3, stride, "same")
    x = rng.normal(size=(3, 4, 4, 2)).astype("float32")
    delta = rng.normal(size=layer(x).shape).astype("float32")
    before = 1 if stride == 1 else 0
    padded = np.pad(x, [(0, 0), (before, 2 - before), (before, 2 - before), (0, 0)])
    d = np.zeros((3, *delta.shape[1:3], 3, 3, 2, 2))
    for h, w, i, j in np.ndindex(*delta.shape[1:3], 3, 3):
        d[:, h, w, i, j] = np.einsum("bi,bo->bio", padded[:, stride * h + i, stride * w + j], delta[:, h, w])
    found = terms(layer, tf.constant(x), tf.constant(delta))
    assert found["absolute"] == pytest.approx(np.abs(d).sum((0, 1, 2)).mean(), rel=1e-3)
    assert found["by_example"] == pytest.approx(np.abs(d.sum((1, 2))).sum(0).mean(), rel=1e-3)
    assert found["summed"] == pytest.approx(np.abs(d.sum((0, 1, 2))).mean(), rel=1e-3)


@pytest.mark.parametrize("normalized", ["all", "none"])
def test_gradients_are_those_of_training(normalized):
    """The terms add up to the gradient that the kernel gets, which is that of Keras's loss."""
    images = some_images(8)
    model = resnet(8, normalized, (8, 8, 1))
    found = gradients(model, images.x_train, images.y_train, 8)
    kernel = model.get_layer("b2_conv_1").kernel
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(images.y_train, model(images.x_train, training=True))
    expected = tape.gradient(value, kernel.value).numpy()
    assert found["middle"]["layer"] == 4 and layer_name(4) == "b2_conv_1"
    assert found["middle"]["rms"] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-3)
    assert found["middle"]["max"] == pytest.approx(np.abs(expected).max(), rel=1e-3)
    assert sum(found["middle"]["counts"]) == expected.size and len(found["middle"]["tail"]) == len(PARTS)
    assert found["kurtosis"][2] == pytest.approx(found["middle"]["kurtosis"])
    assert found["terms"][1] == pytest.approx({**found["terms"][1], "summed": np.abs(expected).mean()}, rel=1e-3)
    assert all(each["absolute"] >= each["by_example"] >= each["summed"] > 0 for each in found["terms"])


def test_gradient_at_the_outputs():
    images = some_images(16)
    outputs, gradient = at_outputs(resnet(8, "last", (8, 8, 1)), images.x_train, images.y_train)
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-5)  # what the last layer has normalized
    exponentials = np.exp(outputs)
    expected = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(10)[images.y_train]) / 16
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_one_sidedness_by_hand():
    outputs = np.array([[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [0, 9, 0]])
    gradient = np.array([[1.0, -1, 0], [1, 0, -1], [0, 0, 0], [-1, 1, 0]])
    found = one_sidedness(outputs, gradient)  # sums 1, 0, -1; absolute sums 3, 2, 1
    assert found == {"coherence": pytest.approx(2 / 6, abs=1e-4), "largest_class": 0.5, "same_prediction": 0.75}


def test_kurtosis_tells_tails():
    rng = np.random.default_rng(0)
    middle_sizes = [Gradients.of([draw(size=20_000)], np.zeros((1, 1))).kurtosis for draw in (rng.normal, rng.laplace)]
    assert middle_sizes == [pytest.approx(3, abs=0.2), pytest.approx(6, abs=0.7)]


def test_moments_and_what_the_last_layer_changes():
    """Up to the outputs, a network whose last layer alone is normalized is the one without normalization."""
    images = some_images()
    found = {each: measure_resnet(settings(), images, each, "he_normal", 3, False) for each in NORMALIZED}
    assert "moments" not in found["last"] and "gradient" not in found["last"]["output"]
    x = images.x_train[np.random.default_rng(3).permutation(32)[:8]]
    for normalized in ("all", "none"):
        models = [
            resnet(8, each, (8, 8, 1), seed=3) for each in {normalized, "last" if normalized == "none" else "all"}
        ]
        for model in models:
            places = activation_statistics(model, x, ["b2_conv_1", "b3_relu_2"])
            moments = found[normalized]["moments"]
            for what in ("mean", "deviation"):
                expected = [np.sqrt(np.mean(each[what] ** 2)) for each in places.values()]
                seen = [moments["convolution"][what][1], moments["block"][what][2]]
                np.testing.assert_allclose(seen, expected, rtol=1e-2)
    assert not tf.config.functions_run_eagerly()


def test_spectrum_by_hand():
    found = spectrum(np.array([0.0, 1e-9, 0.25, 1.0, 4.0]))
    assert found["zero"] == 0.4 and found["condition"] == 16 and found["median"] == 1
    assert found["near_one"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["rms"] == pytest.approx(np.sqrt((0.0625 + 1 + 16) / 5), rel=1e-3)
    assert len(found["quantiles"]) == len(RANKS) and found["quantiles"][0] == 0 and found["quantiles"][-1] == 4
    assert list(RANKS) == sorted(RANKS)
    dead = spectrum(np.zeros(4))
    assert dead["zero"] == 1 and dead["median"] is dead["condition"] is None


def test_random_matrices_have_the_spectrum_of_theory():
    """The squares of the singular values of M factors reach up to ``(M + 1)^(M + 1) / M^M``, and are 1 in the mean."""
    found = random_products(300, (1, 3, 5), seed=0)
    for count, values in found.items():
        edge = ((count + 1) ** (count + 1) / count**count) ** 0.5
        assert values["quantiles"][-1] == pytest.approx(edge, rel=0.08) and values["rms"] == pytest.approx(1, rel=0.05)
    medians = [values["median"] for values in found.values()]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobians_by_differences(activation):
    """Those of each layer of a stack, with moments that are held and that follow the batch, from NumPy in float64."""
    width, examples, layers = 5, 6, 2
    plain, held, batch = layer_jacobians(activation, "gaussian", width, examples, layers, seed=5)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(examples, width))
    start = (x - x.mean(0)) / x.std(0)
    act = (lambda x: np.maximum(x, 0)) if activation == "relu" else (lambda x: x)

    def differences(function, x):
        step, size = 1e-6, x.size
        columns = []
        for i in range(size):
            moved = np.zeros(size)
            moved[i] = step
            up, down = (function(x + sign * moved.reshape(x.shape)) for sign in (1, -1))
            columns.append((up - down).ravel() / (2 * step))
        return np.stack(columns, 1)

    def whole(blocks):
        return tf.linalg.LinearOperatorBlockDiag(
            [tf.linalg.LinearOperatorFullMatrix(block) for block in blocks]
        ).to_dense()

    unnormalized = normalized = start
    for layer in range(layers):
        w = initializer(activation, "gaussian", 5 + 1000 * (layer + 1))((width, width), "float64").numpy()
        y = act(normalized) @ w
        mean, deviation = y.mean(0), y.std(0)

        def weighted(x, w=w):
            return act(x) @ w

        def normalizes(x, w=w):
            y = act(x) @ w
            return (y - y.mean(0)) / y.std(0)

        def holds(x, w=w, mean=mean, deviation=deviation):
            return (act(x) @ w - mean) / deviation

        np.testing.assert_allclose(whole(plain[layer]), differences(weighted, unnormalized), atol=1e-6)
        np.testing.assert_allclose(batch[layer][0], differences(normalizes, normalized), atol=1e-6)
        np.testing.assert_allclose(whole(held[layer]), differences(holds, normalized), atol=1e-6)
        unnormalized, normalized = weighted(unnormalized), normalizes(normalized)


def test_zeros_are_the_two_directions_that_normalization_takes_out():
    """Mean and size of each channel, of 8 examples; and orthogonal matrices have singular values of 1."""
    found = stack_jacobians("linear", "orthogonal", 3, 8, (1, 2), seed=0)
    assert list(found) == list(KINDS) and list(found["none"]) == [1, 2]
    assert found["batch"][1]["zero"] == pytest.approx(2 / 8) and found["held"][1]["zero"] == 0
    assert found["none"][2]["quantiles"][0] == found["none"][2]["condition"] == pytest.approx(1)


@pytest.mark.slow
def test_what_it_writes(whole):
    assert sorted(path.name for path in whole.iterdir()) == WRITTEN
    content = stored(whole)
    assert [(run["network"], run["seed"]) for run in content["runs"]] == [(name, 0) for name in NAMES]
    assert (np.array(content["runs"][0]["values"]["output"]["gradient"]).shape) == (128, 10)
    assert list(content["summary"]["resnet"]) == NAMES[:3]
    table = (whole / "initial_table.md").read_text()
    for said in (
        "| with BN | he_normal | 1 |",
        "BN on the last layer alone",
        "| relu, gaussian, with BN, whole batch | 10",
    ):
        assert said in table


@pytest.mark.slow
def test_nothing_is_measured_twice_and_what_is_missing_is(whole, tmp_path, monkeypatch):
    """A kill in the middle of a measurement leaves those before it."""
    content = stored(whole)
    missing = content["runs"].pop(3)
    content["runs"][5]["values"] = {}  # begun, not ended
    (tmp_path / "initialisation.json").write_text(json.dumps(content))
    monkeypatch.setattr(initial_measurements, "measure_resnet", lambda *_: pytest.fail("it was measured again"))
    made, measure = [], initial_measurements.stack_jacobians

    def counted(*arguments):
        made.append(arguments[:2])
        return measure(*arguments)

    monkeypatch.setattr(initial_measurements, "stack_jacobians", counted)
    assert command.main([*TINY, "--out", str(tmp_path)]) == 0
    assert made == [tuple(content["runs"][5]["network"].split("/")[1:])]
    again = {run["network"]: run["values"] for run in stored(tmp_path)["runs"]}
    before = {run["network"]: run["values"] for run in stored(whole)["runs"]}
    assert again[missing["network"]] == missing["values"]
    assert set(again) == set(before)
    name = content["runs"][5]["network"]
    np.testing.assert_allclose(again[name]["held"]["1"]["quantiles"], before[name]["held"]["1"]["quantiles"], rtol=1e-2)


@pytest.mark.slow
def test_report_needs_the_json_only(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(initial_measurements, "plan", lambda *_: pytest.fail("it was measured"))
    arguments = ["--report", str(whole / "initialisation.json"), "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*WRITTEN} - {"initialisation.json"})
    assert (tmp_path / "initial_table.md").read_bytes() == (whole / "initial_table.md").read_bytes()
    assert "Singular values" in capsys.readouterr().out


@pytest.mark.slow
def test_every_curve_is_named(whole, monkeypatch):
    """In each figure with curves the legend has all there are, and says which has BN."""
    named = {}

    def look(fig):
        handles = [ax.get_legend_handles_labels()[1] for ax in fig.axes]
        shown = [
            text.get_text()
            for legend in [*fig.legends, *(ax.get_legend() for ax in fig.axes)]
            if legend
            for text in legend.get_texts()
        ]
        named[len(named)] = ({label for labels in handles for label in labels}, set(shown))

    monkeypatch.setattr(initial_figures.plt, "close", look)
    initial_report.write(Results.read(whole), whole)
    plotted = [labels for labels, _ in named.values()]
    assert all(labels == shown for labels, shown in named.values()) and len(named) == len(initial_figures.FIGURES)
    assert plotted[0] == {"with BN, he_normal", "without BN, he_normal"}
    assert {"with BN", "without BN", "BN on the last layer alone", "Gaussian"} <= plotted[1]
    assert len([label for label in plotted[3] if re.search("BN", label)]) == 3
    assert len(plotted[4]) == 5


@pytest.mark.slow
def test_a_part_of_the_results_is_reported(whole, tmp_path, capsys):
    """As after a kill: what there are no numbers for is left out."""
    results = Results.read(whole)
    results.folder, results.runs = tmp_path, [run for run in results.runs if run.network == "resnet/none/he_normal"]
    results.save()
    assert command.main(["--report", str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert {"initial_table.md", "initial_gradients.png", "initial_outputs.png"} <= written
    assert not [name for name in written if "singular" in name or "activations" in name]
    assert "without BN" in capsys.readouterr().out


def test_a_report_before_anything_was_measured_is_refused(tmp_path, capsys):
    Results(tmp_path, settings()).save()
    assert command.main(["--report", str(tmp_path)]) == 2
    assert "Nothing of" in capsys.readouterr().err
