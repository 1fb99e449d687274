"""Files that are cut, of something else, or made to do harm: one sentence, exit code 2, nothing written or executed."""

import ast
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasbn
from benchmarks import plot, tables
from examples.accelerate import training as accelerate
from examples.inception import results as inception
from examples.mnist_sigmoid import results as mnist_sigmoid
from examples.parsed import parsed, read
from examples.results import ResultsMissing, SettingsDiffer
from kerasbn.__main__ import main

ROOT = Path(__file__).parents[1]
PACKAGES = ("kerasbn", "tuning", "examples", "benchmarks")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
X = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.keras"
    layers = [keras.layers.Dense(4, name="hidden"), kerasbn.BatchNorm(name="bn")]
    keras.Sequential([keras.Input((3,)), *layers]).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X)
    return path


def refused(arguments, message, capsys):
    """Exit code 2, one line that says `message`, and nothing new in the folder of the model."""
    folder = Path(arguments[1]).parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(each) for each in arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1 and "\x1b" not in said and said.startswith(f"python -m kerasbn {arguments[0]}: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def edited(path, edit, name="config.json"):
    """The file with another `config.json`."""
    with zipfile.ZipFile(path) as file:
        parts = {each: file.read(each) for each in file.namelist()}
    parts[name] = edit(parts[name])
    with zipfile.ZipFile(path, "w") as file:
        for each, content in parts.items():
            file.writestr(each, content)
    return path


def with_layer(layer):
    """An edit that puts `layer` in the place of the dense one."""

    def edit(content):
        config = json.loads(content)
        config["config"]["layers"][1] |= layer
        return json.dumps(config).encode()

    return edit


# .keras files.


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_model_that_is_cut(model, kept, capsys):
    content = model.read_bytes()
    model.write_bytes(content[: int(kept * len(content))])
    refused(["fold", model, "--out", model.with_name("out.keras")], "cannot be loaded as a Keras model: ", capsys)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b'{"module": 3}', b"\xff\xfe", b"[" * 100_000], ids=lambda c: c[:8].hex()
)
def test_a_configuration_that_is_none(model, content, capsys):
    edited(model, lambda _: content)
    refused(["fold", model, "--out", model.with_name("out.keras")], "cannot be loaded as a Keras model: ", capsys)


def test_weights_of_something_else(model, capsys):
    edited(model, lambda content: content[: len(content) // 2], "model.weights.h5")
    refused(["fold", model, "--out", model.with_name("out.keras")], "cannot be loaded as a Keras model: ", capsys)


def test_a_lambda_is_not_run(tmp_path, capsys):
    marker = tmp_path / "marker"
    path = tmp_path / "model.keras"
    program = f"__import__('pathlib').Path({str(marker)!r}).touch() or x"
    evil = eval(f"lambda x: {program}")
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Lambda(evil, output_shape=(3,))(inputs)).save(path)
    trusted = keras.saving.load_model(path, safe_mode=False)
    trusted(np.ones((1, 3), "float32"))
    assert marker.exists()  # so it would be seen
    marker.unlink()
    for command in ("fold", "convert"):
        refused([command, path, "--out", path.with_name("out.keras")], "cannot be loaded.*lambda", capsys)
    assert not marker.exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "hostile_module", "class_name": "Dense", "registered_name": None},
        {"module": "hostile_module", "class_name": "Dense", "registered_name": "hostile>Dense"},
        {"module": "keras.layers.hostile_module", "class_name": "Dense", "registered_name": None},
        {"module": "os", "class_name": "system", "registered_name": "system", "config": "touch marker"},
        {"module": "builtins", "class_name": "function", "registered_name": "function", "config": "exec"},
        {"module": "keras.utils", "class_name": "get_file", "registered_name": None},
    ],
    ids=lambda layer: f"{layer['module']}.{layer['class_name']} as {layer['registered_name']}",
)
def test_no_module_that_a_model_names_is_imported(model, layer, tmp_path, monkeypatch, capsys):
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "hostile_module.py").write_text("class Dense: pass")
    monkeypatch.syspath_prepend(tmp_path / "hostile")
    edited(model, with_layer(layer))
    refused(["fold", model, "--out", tmp_path / "out.keras"], "cannot be loaded as a Keras model: ", capsys)
    assert not any("hostile_module" in name for name in sys.modules) and not Path("marker").exists()


def test_a_registered_name_that_points_elsewhere_makes_that_and_nothing_more(model, tmp_path, capsys):
    """The name decides, and only what is registered has one: a Dense that says to be a BatchNorm is made as one."""
    edited(model, with_layer({"registered_name": "kerasbn>BatchNorm"}))
    refused(["fold", model, "--out", tmp_path / "out.keras"], "cannot be loaded as a Keras model: ", capsys)


@pytest.mark.parametrize("name", ["model.h5", "model.txt", "folder"])
def test_formats_that_have_no_safe_mode(model, name, capsys):
    other = model.with_name(name)
    if name == "folder":
        other.mkdir()
    else:
        model.rename(other)
    message = "There is no file" if name == "folder" else r"must be a \.keras file. Received: .*Save it"
    refused(["fold", other, "--out", other.with_name("out.keras")], message, capsys)


def test_a_file_that_holds_no_model(tmp_path, capsys):
    path = tmp_path / "layer.keras"
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    keras.saving.save_model(layer, path)
    refused(["fold", path, "--out", tmp_path / "out.keras"], "must hold a keras.Model. Received: .* Dense", capsys)


def test_all_that_is_saved_loads_in_safe_mode(tmp_path):
    """Every public layer, and what the transforms make."""
    inputs = keras.Input((4, 4, 3))
    x = kerasbn.LocalResponseNormalization()(inputs)
    x = kerasbn.BatchNorm(activation="relu", virtual_batch_size=2, momentum=None)(keras.layers.Conv2D(4, 3)(x))
    x = kerasbn.Affine(center=True)(x)
    made = keras.Model(inputs, keras.layers.Flatten()(x))
    made.compile("sgd", "mse")
    fast = kerasbn.accelerate(made).model
    for each in (made, fast, kerasbn.fold(made), kerasbn.convert(made), kerasbn.batch_normalize(made)):
        each.save(tmp_path / "made.keras")
        loaded = keras.saving.load_model(tmp_path / "made.keras", safe_mode=True)
        x = np.ones((2, 4, 4, 3), "float32")
        np.testing.assert_allclose(loaded(x), each(x), rtol=1e-6)


# Arrays.


def npz(**parts):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, part in parts.items():
            file.writestr(f"{name}.npy", part)
    return content.getvalue()


def header(description):
    text = description.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy(array, **options):
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


BROKEN_ARRAYS = {
    "empty.npz": b"",
    "empty.npy": b"",
    "cut.npy": npy(X)[:100],
    "text.npy": b"1, 2, 3",
    "cut.npz": npz(x=npy(X))[:150],
    "member_cut.npz": npz(x=npy(X)[:100]),
    "pickled.npy": npy(np.array([{}]), allow_pickle=True),
    "member_pickled.npz": npz(x=npy(np.array([{}]), allow_pickle=True)),
    "huge.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000,), }\n"),
    "code.npy": header("{'descr': __import__('os').system('touch marker'), 'fortran_order': False, 'shape': (1,), }\n"),
}


@pytest.mark.parametrize("name", BROKEN_ARRAYS)
def test_data_that_are_broken(model, name, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(BROKEN_ARRAYS[name])
    refused(["diagnose", model, "--data", path], f"--data: .*{name} cannot be read as arrays", capsys)
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X[:, :2], "expected .* value 3"),
        (X[0], "Invalid input shape|incompatible"),
        (np.float32(1), "`data` must hold arrays with the examples"),
        (np.array([["a", "b", "c"]]), "`data` must hold real numbers"),
        (X[:0], "`data` must give at least one batch"),
        (np.nan * X, "`data` must give every layer finite values"),
    ],
    ids=["channels", "rank", "a number", "strings", "no example", "nan"],
)
def test_data_that_do_not_fit(model, array, message, tmp_path, capsys):
    np.save(tmp_path / "data.npy", array)
    refused(["diagnose", model, "--data", tmp_path / "data.npy"], message, capsys)


def test_places_that_cannot_be_written(model, data, capsys):
    file = model.with_name("file")
    file.write_text("text")
    refused(["fold", model, "--out", file / "out.keras"], "[Nn]ot a directory|[Ee]xists", capsys)
    refused(["diagnose", model, "--data", data, "--plot", file / "out.png"], "[Nn]ot a directory", capsys)


def test_an_interrupt_says_that_nothing_was_written(model, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(kerasbn, "fold", interrupt)
    assert main(["fold", str(model), "--out", str(model.with_name("out.keras"))]) == 130
    assert capsys.readouterr().err == "Interrupted. Nothing was written.\n"
    assert [path.name for path in model.parent.iterdir()] == ["model.keras"]


# Results.

NO_RESULTS = [
    "",
    "{",
    "[]",
    "null",
    "3",
    '"text"',
    "\ufffe",
    "[" * 100_000,
    '{"settings": {}, "runs": {}}',
    '{"settings": [], "runs": []}',
    '{"settings": {}, "runs": [3]}',
    '{"settings": {}, "runs": [{"network": 1, "seed": 0}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": "0"}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": 0, "steps": 5}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": 0, "steps": [1], "accuracy": ["high"]}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": 0, "steps": [1], "accuracy": [NaN]}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": 0, "steps": [1, 2], "accuracy": [0.5]}]}',
    '{"settings": {}, "runs": [{"network": "plain", "seed": 0, "__class__": "x"}]}',
]


@pytest.mark.parametrize("content", NO_RESULTS, ids=lambda content: content[:90])
@pytest.mark.parametrize("experiment", [mnist_sigmoid, accelerate, inception], ids=lambda module: module.__name__)
def test_results_that_are_none(experiment, content, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ResultsMissing, match=f"{path} is not a results file of this experiment"):
        experiment.Results.read(tmp_path)
    settings = parsed(
        experiment.Settings, read(next((ROOT / "examples").glob(f"{short(experiment)}/results/*/*.json")))["settings"]
    )
    with pytest.raises(SettingsDiffer, match=f"{path} .*Nothing was changed"):
        experiment.Results.open(tmp_path, settings)
    assert path.read_text() == content


def short(module):
    return module.__name__.split(".")[1]


def test_results_that_cannot_be_opened(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(SettingsDiffer, match="Nothing was changed"):
        mnist_sigmoid.Results.open(tmp_path, None)
    with pytest.raises(ResultsMissing):
        mnist_sigmoid.Results.read(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/results/*/results.json")), ids=str)
def test_published_results_are_understood(path):
    module = __import__(f"examples.{path.parts[-4]}.training", fromlist=["Results"])
    results = (
        getattr(module, "Results", None)
        or __import__(f"examples.{path.parts[-4]}.results", fromlist=["Results"]).Results
    )
    found = results.read(path)
    assert found.runs and isinstance(found.settings, results.settings_class)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "3",
        '{"benchmark": 3}',
        '{"benchmark": "os.path"}',
        '{"benchmark": "nothing"}',
        '{"benchmark": "kernels"}',
    ],
)
@pytest.mark.parametrize("command", [tables, plot], ids=lambda module: module.__name__)
def test_benchmarks_that_are_none(command, content, tmp_path, capsys):
    path = tmp_path / "models.json"
    path.write_text(content)
    if command is plot and content == '{"benchmark": "nothing"}':
        content = path.write_text('{"benchmark": "models"}')  # it draws by the name of the file
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path)])
    assert "models.json is not what a benchmark wrote" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["models.json"]


# A study.


def study_of(**changes):
    curves = {"val_accuracy": [0.5], "steps": [10.0]}
    values = {"kerasbn/arm": "plain", "kerasbn/learning_rate_factor": 1.0}
    trial = {"name": "0", "values": values, "executions": [{"curves": curves, "diverged_at": None}]}
    settings = {"learning_rate": 0.1, "seeds": 1, "steps": 10, "dataset": "digits"}
    return {"settings": settings, "trials": [trial | changes.pop("trial", {})], "stable": None, "machine": {}} | changes


NO_STUDIES = [
    3,
    [],
    {},
    study_of(settings=[]),
    study_of(settings={}),
    study_of(trials={}),
    study_of(stable=[1]),
    study_of(other=1),
    study_of(trial={"name": 1}),
    study_of(trial={"values": {"kerasbn/arm": "../.."}}),
    study_of(trial={"values": {"kerasbn/arm": "plain", "kerasbn/learning_rate_factor": "1"}}),
    study_of(trial={"executions": [{"curves": {"val_accuracy": [0.5], "steps": []}, "diverged_at": None}]}),
    study_of(trial={"executions": [{"curves": {"val_accuracy": [None], "steps": [1.0]}, "diverged_at": None}]}),
    study_of(trial={"executions": [{"curves": {"val_accuracy": "high"}, "diverged_at": None}]}),
]


@pytest.mark.parametrize("content", NO_STUDIES, ids=lambda content: json.dumps(content)[:90])
def test_studies_that_are_none(content, tmp_path, capsys):
    pytest.importorskip("keras_tuner")
    from tuning import report
    from tuning.results import read as read_study

    (tmp_path / "results.json").write_text(json.dumps(study_of()))
    assert read_study(tmp_path).trials[0].accuracy == 0.5
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert report.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "results.json is not the result of a study" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"trials": "many"}', "[" * 100_000], ids=lambda content: content[:20]
)
def test_settings_of_a_study_that_are_none(content, tmp_path, capsys):
    pytest.importorskip("keras_tuner")
    from tuning import study

    (tmp_path / "study.json").write_text(content)
    assert study.main(["--out", str(tmp_path), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "study.json cannot be read" in said and "Nothing was changed" in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    "state",
    [
        {"start_order": ["999999999"]},  # would be filled up with a thousand million trials
        {"start_order": ["one"]},
        {"start_order": 3},
        {"end_order": [["0"]]},
        {"hyperparameters": 3},
        [],
    ],
    ids=str,
)
def test_a_tuner_directory_that_lies_is_set_aside(state, tmp_path):
    pytest.importorskip("keras_tuner")
    import keras_tuner

    from tuning.recovery import mend

    project = tmp_path / "trials"
    project.mkdir()
    (project / "oracle.json").write_text(json.dumps(state))
    (project / "trial_999999998").mkdir()
    (project / "trial_999999998" / "trial.json").write_text(
        json.dumps(
            {
                "trial_id": "999999998",
                "hyperparameters": {"space": [], "values": {}},
                "metrics": {"metrics": {}},
                "score": None,
                "best_step": 0,
                "status": "RUNNING",
                "message": None,
            }
        )
    )
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=4)
    said = mend(project, oracle, tmp_path / "aside")
    assert len(said) == 2 and all("cannot be read" in line for line in said)
    assert sorted(path.name for path in (tmp_path / "aside").iterdir()) == ["oracle.json.1", "trial_999999998.1"]
    assert sorted(path.name for path in project.iterdir()) == ["oracle.json", "tuner0.json"]


# JSON into classes.


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, True, "it must be of type int, and is True"),
        (float, "1", "it must be of type float, and is '1'"),
        (list[int], [1, 2.5], r"it\[1\] must be of type int, and is 2.5"),
        (tuple[float, float], [1.0], "it must have 2 entries, and has 1"),
        (dict[str, list[float | None]], {"a": [None, "b"]}, r"it\['a'\]\[1\] must be of type float"),
        (str, "x" * 9, None),
        (int | str, [], r"it must be of type str, and is \[\]"),
    ],
    ids=str,
)
def test_json_is_what_the_class_says(kind, value, message):
    if message is None:
        assert parsed(kind, value, "it") == value
        return
    with pytest.raises(ValueError, match=message):
        parsed(kind, value, "it")


def test_json_into_classes():
    settings = {
        "dataset": "digits",
        "steps": 1,
        "batch_size": 2,
        "learning_rate": 1,
        "jit_compile": "a",
        "measurements": 1,
    }
    found = parsed(mnist_sigmoid.Settings, settings)
    assert found.learning_rate == 1 and found.momentum == 0.99
    with pytest.raises(ValueError, match="settings lacks steps and has pace"):
        parsed(mnist_sigmoid.Settings, {n: v for n, v in settings.items() if n != "steps"} | {"pace": 1}, "settings")


# The code.

#: What runs what a file says.
DANGEROUS = {"eval", "exec", "__import__", "os.system", "os.popen"}
#: Modules that read objects out of files.
DANGEROUS_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
#: Where Keras may load what is not safe, with the reason.
UNSAFE = {"kerasbn/transforms/clone.py": "a copy of a layer that is in memory: what it runs was run before"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_executes_what_a_file_says(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            found += [name for name in names if name.split(".")[0] in DANGEROUS_MODULES]
        if isinstance(node, ast.Call):
            found += [name for name in [ast.unparse(node.func)] if name in DANGEROUS]
            found += [
                f"{each.arg}={ast.unparse(each.value)}"
                for each in node.keywords
                if (each.arg in ("shell", "allow_pickle") and ast.unparse(each.value) != "False")
                or (each.arg == "safe_mode" and ast.unparse(each.value) != "True")
            ]
        if isinstance(node, ast.Constant) and node.value == "safe_mode" and str(path.relative_to(ROOT)) not in UNSAFE:
            found.append("safe_mode")
    assert not found
