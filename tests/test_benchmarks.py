"""The benchmarks: that they run and write what they measured. How long anything takes is not tested."""

import importlib
import json
import re
import sys
from importlib.util import find_spec

import keras
import pytest

from benchmarks import (
    acceleration,
    floor,
    fold,
    fresh,
    kernels,
    large_mean,
    many_models,
    memory,
    models,
    networks,
    options,
    plot,
    report,
    startup,
    sync,
    sync_cost,
    tables,
    timing,
)
from tests.crossing import crossed

everything = importlib.import_module("benchmarks.__main__")
MLP = ["--models", "MLP", "--modes", "graph", "--repeats", "1"]


def in_this_process(function, *arguments):
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)(*arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the results of each benchmark, of something small; processes are really fresh for one of them."""
    folder = tmp_path_factory.mktemp("results")
    small = networks.NETWORKS["MLP"]._replace(large_batch=100)
    kernels.main(["--shapes", "2x2x2x3", "8x3", "--repeats", "1", "--out", str(folder / "kernels.json")])
    models.main([*MLP, "--out", str(folder / "models.json")])
    sync.main(["--replicas", "2", "--shapes", "6x3", "--repeats", "1", "--out", str(folder / "sync.json")])
    fold.main(["--models", "MobileNetV2", "--batches", "1", *MLP[2:], "--out", str(folder / "fold.json")])
    acceleration.main(["--rates", "CosineDecay", *MLP[4:], "--out", str(folder / "acceleration.json")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh, "call", in_this_process)
        large_mean.main(["--libraries", "kerasbn", "Keras", "--out", str(folder / "large_mean.json")])
        patch.setitem(networks.NETWORKS, "MLP", small)
        memory.main([*MLP, "--out", str(folder / "memory.json")])
        patch.setattr(startup, "STEPS", {"MLP": 25})
        patch.setattr(startup, "READ", (1, 2, 10))
        startup.main([*MLP, "--out", str(folder / "startup.json")])
        many_models.main(["--quick", "--out", str(folder / "many_models.json")])
    return folder


# Timing.


def test_rounds_have_each_function_once_in_any_order():
    calls = []
    functions = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    results = timing.in_rounds(functions, repeats=5, warm_up=2)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 7 and {"".join(sorted(names)) for names in rounds} == {"abc"}
    assert len(set(rounds)) > 1
    assert {name: len(values) for name, values in results.items()} == {"a": 5, "b": 5, "c": 5}
    assert min(map(min, results.values())) > 2 * 3


def test_median_ratio_is_of_pairs():
    assert timing.median_ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3


# Fresh processes.


def test_fresh_process_answers_until_it_is_left():
    with fresh.Process(SAID="once") as process:
        first = process.call("os:getpid")
        assert process.call("os:getpid") == first
        assert process.call("os:getenv", "SAID") == "once"
    assert fresh.call("os:getpid") != first


def test_fresh_process_that_fails_says_why():
    with fresh.Process() as process:
        with pytest.raises(fresh.ProcessFailed, match="math domain error"):
            process.call("math:sqrt", -1)
        with pytest.raises(fresh.ProcessFailed, match="no result"):
            process.call("math:sqrt", 1)


def test_fresh_process_is_ended_at_its_limit():
    with fresh.Process() as process, pytest.raises(fresh.ProcessFailed, match=r"limit: 0\.5 s"):
        process.call("time:sleep", 100, timeout=0.5)


# Commands.


@pytest.mark.slow
def test_kernels(folder):
    stored = json.loads((folder / "kernels.json").read_text())
    assert stored["machine"]["tensorflow"] and stored["dtype"] == "float32" and stored["layout"] == "last"
    assert [result["shape"] for result in stored["results"]] == [[2, 2, 2, 3], [8, 3]]
    image, vectors = ({*result["milliseconds"]} for result in stored["results"])
    tensorflow = {f"{peer} {mode}" for peer in ("kerasbn", "keras", "fused") for mode in options.MODES}
    torch = {"torch", "torch channels_last"} if find_spec("torch") else set()
    assert image == tensorflow | {"floor"} | torch and vectors == image - {"torch channels_last"}
    assert all(value > 0 for result in stored["results"] for value in result["milliseconds"].values())


def test_kernels_without_torch(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    out = tmp_path / "new" / "kernels.json"
    kernels.main(["--shapes", "8x3", "--repeats", "1", "--out", str(out)])
    stored = json.loads(out.read_text())
    assert stored["floor"] == "NumPy" and not any("torch" in name for name in stored["results"][0]["milliseconds"])
    assert "PyTorch is not installed" in capsys.readouterr().out
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(("dtype", "layout"), crossed(["bfloat16", "float16"], ["first", "middle"]))
def test_kernels_settings(dtype, layout, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    built, layer_step = [], kernels.layer_step
    monkeypatch.setattr(kernels, "layer_step", lambda *arguments: built.append(arguments) or layer_step(*arguments))
    kernels.main(
        [
            "--shapes",
            "2x3x4x5",
            "--repeats",
            "1",
            "--dtype",
            dtype,
            "--layout",
            layout,
            "--out",
            str(tmp_path / "k.json"),
        ]
    )
    stored = json.loads((tmp_path / "k.json").read_text())
    assert (stored["dtype"], stored["layout"]) == (dtype, layout)
    shape, axis = {"first": ((2, 5, 3, 4), 1), "middle": ((2, 3, 5, 4), 2)}[layout]
    assert {(tuple(x.shape), x.dtype.name, axis) for _, _, axis, x, _ in built} == {(shape, dtype, axis)}


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed")
def test_threads_and_torch_is_in_a_process_of_its_own(tmp_path):
    """Threads can be set only before TensorFlow runs."""
    out = tmp_path / "kernels.json"
    arguments = ["--shapes", "8x3", "--repeats", "1", "--threads", "1", "--out", str(out)]
    with fresh.Process() as process:
        process.call("benchmarks.kernels:main", arguments)
        assert "torch" not in process.call("tests.test_benchmarks:loaded_modules")
    assert json.loads(out.read_text())["threads"] == 1


def loaded_modules():
    return [name for name in sys.modules if "." not in name]


def test_floor_is_of_the_bytes_asked_for():
    x, dy, y = floor.numbers(24)
    assert x.nbytes == dy.nbytes == y.nbytes == 24


@pytest.mark.slow
def test_models(folder):
    (result,) = json.loads((folder / "models.json").read_text())["results"]
    assert (result["model"], result["mode"], result["batch"], result["repeats"]) == ("MLP", "graph", 60, 1)
    assert all(result["milliseconds"][layer] > 0 for layer in networks.LAYERS)


@pytest.mark.slow
def test_startup(folder):
    (result,) = json.loads((folder / "startup.json").read_text())["results"]
    for layer in startup.LAYERS:
        seconds = [result["seconds"][layer][step] for step in ("1", "2", "10")]
        assert 0 < seconds[0] < seconds[1] < seconds[2]
        assert result["new size"][layer] > 0
    assert result["traced late"] == 0


@pytest.mark.slow
def test_many_models(folder):
    results = json.loads((folder / "many_models.json").read_text())["results"]
    assert [result["kind"] for result in results] == ["models", "sizes"]
    assert all({*result["maps"]} == {*result["megabytes"]} == {"keras", "kerasbn"} for result in results)


def test_what_is_left_behind_is_the_mean_growth_of_the_second_half():
    readings = [(100 * min(i, 3) + i, 5.0) for i in range(10)]
    assert many_models.growth(readings, 0) == 1 and many_models.growth(readings, 1) == 0


@pytest.mark.slow
def test_memory(folder):
    (result,) = json.loads((folder / "memory.json").read_text())["results"]
    assert result["batch"] == 100 and {*result["megabytes"]} == {*networks.LAYERS}
    now, most = memory.resident()
    assert 1e7 < now <= most < 1e12


@pytest.mark.slow
def test_sync(folder):
    (result,) = json.loads((folder / "sync.json").read_text())["results"]
    assert {*result["milliseconds"]} == {*sync.WAYS}
    ours, keras_layer = (result["traffic"][f"{name} synchronized, TF"] for name in ("kerasbn", "keras"))
    slots, sums, channels = 2 * 4, 2, 3
    assert ours == {"collectives": 2, "bytes": 4 * channels * (slots + sums)}
    assert keras_layer["collectives"] == 5
    assert result["traffic"]["keras, TF"]["collectives"] == 0 and result["traffic"]["kerasbn, TF"]["collectives"] == 1


@pytest.mark.slow
def test_acceleration(folder):
    (result,) = json.loads((folder / "acceleration.json").read_text())["results"]
    assert result["rate"] == "CosineDecay" and set(result["milliseconds"]) == set(acceleration.WAYS)
    assert min(result["milliseconds"].values()) > 0 and result["of without"]["without"] == 1


@pytest.mark.slow
def test_fold(folder):
    (result,) = json.loads((folder / "fold.json").read_text())["results"]
    assert (result["model"], result["batch"], result["mode"]) == ("MobileNetV2", 1, "graph")
    assert (result["normalizations"], result["affine"]) == (52, 0)
    assert min(result["milliseconds"].values()) > 0 and {*result["milliseconds"]} == {"keras", "folded"}


def test_cost_of_collectives():
    """Against the formulas by hand: two replicas, and messages so large, or so small, that one term is left."""
    network = sync_cost.Network(latency=1.0, bandwidth=10.0)
    assert sync_cost.all_reduce(network, 2, 40.0) == 1 + 40 / 10  # doubling: one message
    assert sync_cost.all_reduce(network, 4, 4e6) == pytest.approx(2 * 3 * 1e6 / 10, rel=1e-4)  # a ring
    assert sync_cost.all_reduce(network, 1024, 0.0) == 10
    assert sync_cost.all_gather(network, 4, 40.0) == 2 + 3 * 40 / 10


def test_cost_table(capsys):
    sync_cost.main(["--latency", "5", "--bandwidth", "100"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(sync_cost.REPLICAS)
    with pytest.raises(SystemExit, match="2"):
        sync_cost.main(["--latency", "5"])
    assert "--latency and --bandwidth come together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (models.main, ["--models", "VGG"], r"--models: invalid choice: 'VGG' .*ResNet-20"),
        (memory.main, ["--modes", "eager"], r"--modes: invalid choice: 'eager' .*graph.*xla"),
        (startup.main, ["--repeats", "0"], r"--repeats: must be an integer of at least 1, got '0'"),
        (kernels.main, ["--threads", "two"], r"--threads: must be an integer of at least 1, got 'two'"),
        (kernels.main, ["--shapes", "8x3x2"], r"--shapes: must be BATCHxCHANNELS or .*got '8x3x2'"),
        (kernels.main, ["--dtype", "int8"], r"--dtype: invalid choice: 'int8'"),
        (fold.main, ["--batches", "0"], r"--batches: must be an integer of at least 1, got '0'"),
        (everything.main, ["--only", "speed"], r"--only: invalid choice: 'speed' .*kernels"),
        (plot.main, ["nowhere"], "no JSON file in nowhere"),
        (tables.main, ["nowhere"], "no JSON file in nowhere"),
    ],
)
def test_wrong_arguments_are_named(main, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "main",
    [
        kernels.main,
        models.main,
        startup.main,
        many_models.main,
        memory.main,
        sync.main,
        sync_cost.main,
        fold.main,
        large_mean.main,
        plot.main,
        tables.main,
        everything.main,
    ],
)
def test_help_has_an_example(main, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "Example: python -m benchmarks" in capsys.readouterr().out


@pytest.mark.slow
def test_pictures(folder):
    plot.main([str(folder)])
    for name in ("kernels.png", "networks.png", "startup.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tables(folder):
    tables.main([str(folder)])
    text = (folder / "tables.md").read_text()
    names = ["acceleration", "fold", "kernels", "large_mean", "many_models", "memory", "models", "startup", "sync"]
    assert re.findall("^## (.*)$", text, re.M) == names
    assert "| 2x2x2x3 (0.0) |" in text and text.count("| MLP, ") == 3 and "| MobileNetV2, 1 | graph |" in text


def test_a_library_that_is_not_installed_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(large_mean.LIBRARIES, "Keras", (["no_such_package"], None))
    large_mean.main(["--libraries", "Keras", "--out", str(tmp_path / "large_mean.json")])
    assert "Keras is left out: no_such_package not installed" in capsys.readouterr().out
    assert json.loads((tmp_path / "large_mean.json").read_text())["results"] == []


@pytest.mark.slow
def test_kerasbn_is_right_at_a_large_mean(folder):
    ours, theirs = json.loads((folder / "large_mean.json").read_text())["results"]
    assert max(ours["errors"]) < 2e-5 and theirs["errors"][-1] > 1e-3


@pytest.mark.slow
def test_everything_at_once(tmp_path, monkeypatch, capfd):
    runs = {"small": ["kernels", "--shapes", "8x3", "--repeats", "1"], "broken": ["kernels", "--shapes", "8"]}
    monkeypatch.setattr(everything, "RUNS", runs)
    assert everything.main(["--quick", "--only", "broken", "small", "--out", str(tmp_path)]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"small.json", "small.png", "tables.md"}
    assert re.search(r"Failed:\nkernels --shapes 8 .*broken\.json\n$", capfd.readouterr().err)


# What is measured.


def test_table_and_markdown():
    rows = [["a", "bc"], ["def", "g"]]
    assert report.table(rows) == "  a  bc\n---  --\ndef   g"
    assert report.markdown(rows) == "| a | bc |\n|---|---|\n| def | g |"


def normalizations(model):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "count"),
    [("MLP", 3), ("Inception", 13), ("ResNet-20", 19), pytest.param("MobileNetV2", 52, marks=pytest.mark.slow)],
)
def test_networks_differ_only_by_their_normalization(name, count):
    found = {layer: networks.NETWORKS[name].build(layer_class) for layer, layer_class in networks.LAYERS.items()}
    assert {layer: normalizations(model) for layer, model in found.items()} == {
        "no BN": 0,
        "keras": count,
        "kerasbn": count,
        "kerasbn, activation=": count,
    }
    assert len({found[layer].count_params() for layer in found if layer != "no BN"}) == 1
    assert len(found["keras"].layers) == len(found["kerasbn"].layers) == len(found["no BN"].layers) + count
    activations = sum(isinstance(layer, keras.layers.Activation) for layer in found["no BN"].layers)
    inside = [layer.activation for layer in found["kerasbn, activation="].layers if hasattr(layer, "momentum")]
    assert sum(activation is not keras.activations.linear for activation in inside) == activations > 0
    assert len(found["kerasbn, activation="].layers) == len(found["kerasbn"].layers) - activations


def test_resnet20_is_that_of_the_paper():
    """He et al. 2016, table 6: 0.27 million parameters; here with projections instead of padding at two shortcuts."""
    assert 0.27e6 < networks.resnet20(keras.layers.BatchNormalization).count_params() < 0.28e6


def test_mobilenet_v2_has_the_weights_of_the_one_in_keras():
    ours = networks.mobilenet_v2(keras.layers.BatchNormalization)
    theirs = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]


def test_each_convolution_of_inception_is_normalized():
    model = networks.inception(keras.layers.BatchNormalization)
    for kind in (keras.layers.Conv2D, keras.layers.Activation):
        assert sum(isinstance(layer, kind) for layer in model.layers) == normalizations(model)
