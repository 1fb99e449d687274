"""`python -m kerasbn`: each command on files, what it refuses, and that it then writes nothing."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasbn
from kerasbn.__main__ import main

X = np.random.default_rng(0).normal(2.0, 3.0, size=(256, 6)).astype("float32")


@pytest.fixture
def model(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, use_bias=False), keras.layers.BatchNormalization(name="bn"), keras.layers.ReLU()]
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)]).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=np.zeros(256))
    return path


def test_from_diagnosis_to_serving(model, data, tmp_path, capsys):
    assert main(["diagnose", str(model), "--data", str(data)]) == 1
    assert "moving statistics" in capsys.readouterr().out
    better = tmp_path / "better.keras"
    assert main(["recalibrate", str(model), "--data", str(data), "--out", str(better)]) == 0
    assert "256 samples in 8 batches" in capsys.readouterr().out
    assert main(["diagnose", str(better), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is True
    folded = tmp_path / "folded.keras"
    assert main(["fold", str(better), "--out", str(folded)]) == 0
    assert "folded into" in capsys.readouterr().out
    expected = keras.saving.load_model(better)(X, training=False)
    found = keras.saving.load_model(folded)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in found.layers)
    np.testing.assert_allclose(found(X), expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_model_is_looked_at_where_layers_are_named(model, data, tmp_path, capsys):
    frozen, better = tmp_path / "frozen.keras", tmp_path / "better.keras"
    loaded = keras.saving.load_model(model)
    kerasbn.freeze(loaded)
    loaded.save(frozen)
    assert main(["diagnose", str(frozen), "--data", str(data)]) == 2
    assert "layers='bn'" in capsys.readouterr().err
    assert main(["diagnose", str(frozen), "--data", str(data), "--layers", "bn"]) == 1
    assert "recalibrate(model, data, layers='bn')" in capsys.readouterr().out
    assert main(["recalibrate", str(frozen), "--data", str(data), "--layers", "bn", "--out", str(better)]) == 0
    assert main(["diagnose", str(better), "--data", str(data), "--layers", "bn"]) == 0


def test_a_layer_that_is_scaled_to_nothing_is_a_warning(model, data, tmp_path, capsys):
    loaded = keras.saving.load_model(model)
    kerasbn.recalibrate(loaded, X)
    loaded.get_layer("bn").gamma.assign(np.full(8, 1e-6))
    loaded.save(tmp_path / "small.keras")
    assert main(["diagnose", str(tmp_path / "small.keras"), "--data", str(data), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["severity"] == "warning" and "8 of 8 channels" in finding["advice"]


def test_convert_and_back(model, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.keras", tmp_path / "theirs.keras"
    assert main(["convert", str(model), "--out", str(ours), "--synchronized", "--momentum", "0.9"]) == 0
    layer = keras.saving.load_model(ours).get_layer("bn")
    assert isinstance(layer, kerasbn.BatchNorm) and layer.synchronized and layer.momentum == 0.9
    assert main(["convert", str(ours), "--out", str(theirs), "--to-keras"]) == 0
    assert type(keras.saving.load_model(theirs).get_layer("bn")) is keras.layers.BatchNormalization
    assert "bn" in capsys.readouterr().out


def test_data_by_the_names_of_inputs(tmp_path):
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    keras.Model(inputs, kerasbn.BatchNorm()(joined)).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", left=X[:, :3], right=X[:, 3:])
    arguments = ["--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out.keras")]
    assert main(["recalibrate", str(tmp_path / "model.keras"), *arguments]) == 0
    layer = keras.saving.load_model(tmp_path / "out.keras").layers[-1]
    np.testing.assert_allclose(layer.moving_mean, X.mean(0), rtol=1e-5)


def test_a_picture(model, data, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["diagnose", str(model), "--data", str(data), "--plot", str(tmp_path / "out.png")]) == 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_overwritten_unasked(model, data, capsys):
    before = model.read_bytes()
    arguments = ["recalibrate", str(model), "--data", str(data), "--out", str(model)]
    assert main(arguments) == 2 and "exists. Nothing was changed" in capsys.readouterr().err
    assert model.read_bytes() == before
    assert main([*arguments, "--overwrite"]) == 0
    np.testing.assert_array_less(1, keras.saving.load_model(model).get_layer("bn").moving_variance)
    assert sorted(path.name for path in model.parent.iterdir()) == ["data.npz", "model.keras"]


def test_what_cannot_be_done(model, data, tmp_path, capsys):
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04nonsense")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "others.npz", a=X, b=X)
    out = ["--out", str(tmp_path / "out.keras")]
    for arguments, message in [
        (["fold", str(tmp_path / "nowhere.keras"), *out], "There is no file"),
        (["fold", str(tmp_path / "broken.keras"), *out], "cannot be loaded as a Keras model"),
        (["fold", str(model), "--out", str(tmp_path / "out.h5")], "--out must be a .keras file"),
        (["convert", str(model), *out, "--to-keras", "--momentum", "0.5"], "--to-keras takes no settings"),
        (["convert", str(model), *out, "--inference-only"], "--inference-only is of --to-keras"),
        (["recalibrate", str(model), "--data", str(tmp_path / "pickled.npy"), *out], "cannot be read as arrays"),
        (["recalibrate", str(model), "--data", str(tmp_path / "others.npz"), *out], "must have an array `x`"),
        (["recalibrate", str(model), "--data", str(tmp_path / "nowhere.npz"), *out], "nowhere.npz. --data must be"),
    ]:
        assert main(arguments) == 2, arguments
        assert message in capsys.readouterr().err
        assert not list(tmp_path.glob("out.*")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dignose"], "invalid choice: 'dignose'"),
        (["recalibrate", "model.keras", "--data", "x.npy", "--out", "o.keras", "--steps", "0"], "--steps: must be at"),
        (["diagnose", "model.keras", "--data", "x.npy", "--batch-size", "-1"], "--batch-size: must be at least 1"),
        (["convert", "model.keras", "--out", "o.keras", "--momentum", "2"], "--momentum: must be a number from 0 to 1"),
        (["convert", "model.keras", "--out", "o.keras", "--virtual-batch-size", "0"], "size: must be at least 1"),
        (["convert", "model.keras", "--out", "o", "--virtual-batch-size", "2", "--synchronized"], "not allowed with"),
    ],
)
def test_wrong_options_are_named(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert message in capsys.readouterr().err


def test_an_output_that_is_full(model, data, tmp_path, monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self):
            return os.open(tmp_path / "discarded", os.O_CREAT | os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["diagnose", str(model), "--data", str(data), "--json"]) == 2
    assert "The output cannot be written: No space left on device." in capsys.readouterr().err


def test_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "kerasbn", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(kerasbn.__file__).parents[1],
        env=os.environ,
    )
    assert done.returncode == 0 and "diagnose" in done.stdout and "exit status" in done.stdout


def test_where_to_write_is_asked_before_the_work(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(kerasbn, "recalibrate", lambda *_, **__: pytest.fail("it worked for nothing"))
    assert main(["recalibrate", str(model), "--data", str(data), "--out", str(tmp_path / "out.h5")]) == 2


def test_to_keras_for_inference_only(model, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.keras", tmp_path / "theirs.keras"
    assert main(["convert", str(model), "--out", str(ours), "--virtual-batch-size", "8"]) == 0
    assert main(["convert", str(ours), "--out", str(theirs), "--to-keras"]) == 2
    assert "inference_only" in capsys.readouterr().err and not theirs.exists()
    assert main(["convert", str(ours), "--out", str(theirs), "--to-keras", "--inference-only"]) == 0
    loaded = keras.saving.load_model(theirs)
    assert type(loaded.get_layer("bn")) is keras.layers.BatchNormalization
