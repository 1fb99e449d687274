"""What the commands of all experiments do alike: refuse what they cannot do, lose nothing, and say how to go on."""

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crossing import crossed, first_of

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Experiment:
    """One of them. Defaults are those of most."""

    name: str
    train: str  # what its first training calls
    changed: tuple[str, ...]  # an option that its committed results were made with another value of
    differs: str  # and what is said of that
    full: tuple[str, ...] = ("--full",)
    dataset: str = "cifar10"
    file: str = "results.json"
    committed: str = "digits"
    table: str | None = "table.md"

    def __str__(self):
        return self.name

    @property
    def command(self):
        package = EXAMPLES.joinpath(*self.name.split(".")).is_dir()
        return importlib.import_module(f"examples.{self.name}" + (".__main__" if package else "")).main

    def make_report(self, *arguments):
        if self.name == "understanding.initialisation":
            return self.command(["--report", *arguments])
        return importlib.import_module(f"examples.{self.name}.report").main([*arguments])

    @property
    def results(self):
        return EXAMPLES / self.name.split(".")[0] / "results" / self.committed


EXPERIMENTS = [
    Experiment(
        "mnist_sigmoid",
        "training.train",
        ("--learning-rate", "0.7"),
        "asked for 0.7",
        full=("--dataset", "mnist"),
        dataset="mnist",
        committed="mnist",
        table=None,
    ),
    Experiment(
        "accelerate", "training.train", ("--factor", "7"), "asked for 7.0", full=("--dataset", "cifar10"), table=None
    ),
    Experiment("inception", "training.train", ("--batch-size", "8"), "batch_size (there 32, asked for 8)"),
    Experiment("ensemble", "training.train", ("--larger", "3"), "larger (there 2.0, asked for 3.0)"),
    Experiment(
        "covariate_shift", "training.train", ("--probe", "50"), "probe (there 300, asked for 50)", dataset="mnist"
    ),
    Experiment("initialisation", "training.Trainer.train", ("--rates", "0.1"), "1.0], asked for [0.1])"),
    Experiment(
        "understanding", "training.train", ("--search-steps", "5"), "steps (there 60, asked for 5)", file="depth.json"
    ),
    Experiment(
        "understanding.initialisation",
        "initial_measurements.measure_resnet",
        ("--width", "5"),
        "width (there 16, asked for 5)",
        file="initialisation.json",
        table="initial_table.md",
    ),
]
each = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=str)


@each
def test_missing_data_set(experiment, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    assert experiment.command([*experiment.full, "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"Data set '{experiment.dataset}' is not in {tmp_path}" in said
    assert (
        f"python -m examples.{experiment.name} --dataset {experiment.dataset} --data-dir {tmp_path} --download" in said
    )
    assert not (tmp_path / "out").exists()


@each
def test_other_settings_are_refused_and_nothing_is_lost(experiment, tmp_path, capsys):
    """Those of results that were published."""
    out = shutil.copytree(experiment.results, tmp_path / "out")
    before = {path: path.read_bytes() for path in out.iterdir()}
    dataset = ["--dataset", experiment.committed]
    assert experiment.command([*dataset, *experiment.changed, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert experiment.differs in said and f"{experiment.file} has results of other settings" in said
    assert "Nothing was changed. Name another folder with `--out`" in said
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("experiment", "content"), crossed(EXPERIMENTS, ["", "[]", '{"runs": [{"a": 1}], "settings": {}}'])
)
def test_something_else_is_refused_and_kept(experiment, content, tmp_path, capsys):
    (tmp_path / experiment.file).write_text(content)
    assert experiment.command(["--out", str(tmp_path)]) == 2
    assert f"{experiment.file} is not a results file of this experiment" in capsys.readouterr().err
    assert experiment.make_report(str(tmp_path)) == 2
    assert f"{experiment.file} is not a results file of this experiment" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [experiment.file]
    assert (tmp_path / experiment.file).read_text() == content


@each
def test_an_interrupt_says_how_to_go_on(experiment, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"examples.{experiment.name.split('.')[0]}.{experiment.train}", interrupt)
    assert experiment.command(["--out", str(tmp_path / "out")]) == 130
    assert "Interrupted. What was measured is kept; the same command goes on" in capsys.readouterr().err


@each
def test_a_report_of_nothing_is_refused(experiment, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert experiment.make_report(str(folder)) == 2
        assert f"There are no results in {folder}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("experiment", first_of(sorted(EXPERIMENTS, key=lambda each: each.name != "ensemble")), ids=str)
def test_published_results_can_be_drawn_again(experiment, tmp_path, capsys):
    """From the JSON alone, with the table that was published."""
    before = {path: path.read_bytes() for path in experiment.results.iterdir()}
    assert experiment.make_report(str(experiment.results), "--out", str(tmp_path)) == 0
    drawn = sorted(path for path in tmp_path.iterdir() if path.suffix == ".png")
    assert drawn and str(drawn[0]) in capsys.readouterr().out
    if experiment.table:
        assert (tmp_path / experiment.table).read_text() == (experiment.results / experiment.table).read_text()
    assert {path: path.read_bytes() for path in experiment.results.iterdir()} == before
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mnist_sigmoid", ["--steps", "0"], "must be above 0"),
        ("mnist_sigmoid", ["--learning-rate", "-1"], "must be above 0"),
        ("mnist_sigmoid", ["--seeds", "two"], "invalid"),
        ("accelerate", ["--networks", "resnet"], "invalid choice"),
        (
            "inception",
            ["--steps", "30", "--every", "4"],
            "--every: must divide the steps of each training. Received: 4, and",
        ),
        ("inception", ["--search-rates", "0.1"], "is of --search"),
        ("inception", ["--search", "--learning-rate", "0.1"], "not allowed with"),
        ("inception", ["--networks", "resnet"], "invalid choice: 'resnet'"),
        ("inception", ["--dataset", "imagenet"], "invalid choice"),
        ("ensemble", ["--factor", "0"], "must be above 0"),
        ("ensemble", ["--top-k", "1"], "invalid choice"),
        ("ensemble", ["--every", "7"], "must divide the steps of each training. Received: 7, and steps 300"),
        ("covariate_shift", ["--every", "3"], "must divide the steps of each training. Received: 3, and steps 1000"),
        ("covariate_shift", ["--activation", "tanh"], "invalid choice"),
        ("covariate_shift", ["--rates", "-1"], "must be above 0"),
        ("initialisation", ["--scales", "-1"], "must be above 0"),
        (
            "understanding",
            ["--steps", "30", "--every", "4"],
            "must divide the steps of each training. Received: 4, and",
        ),
        ("understanding", ["--resnet", "10"], "must be 6 n + 2: 8, 14, 20, ..., got 10"),
        ("understanding", ["--depths", "8", "2"], "must be 6 n + 2: 8, 14, 20, ..., got 2"),
        ("understanding", ["--normalized", "first"], "invalid choice: 'first'"),
        ("understanding", ["--only", "gradients"], "invalid choice"),
        ("understanding.initialisation", ["--depth", "9"], "must be 6 n + 2: 8, 14, 20, ..., got 9"),
        (
            "understanding.initialisation",
            ["--initializers", "he"],
            "invalid choice: 'he'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options_name_themselves(name, options, said, tmp_path, capsys):
    (experiment,) = (one for one in EXPERIMENTS if one.name == name)
    with pytest.raises(SystemExit) as ended:
        experiment.command([*options, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    message = capsys.readouterr().err
    assert options[0] in message and said in message


def test_defaults_are_said_once_where_they_are_the_same():
    help_of = importlib.import_module("examples.options").by_dataset

    @dataclass
    class Preset:
        steps: int
        rate: float
        depths: tuple

    presets = {"digits": Preset(600, 0.03, (8, 14)), "cifar10": Preset(18_000, 0.03, (8, 20))}
    assert help_of(presets, "steps") == "600 for digits, 18,000 for cifar10"
    assert help_of(presets, "rate") == "0.03"
    assert help_of(presets, "depths") == "8 14 for digits, 8 20 for cifar10"
