"""Help and what is wrong on a command line come at once: no command imports TensorFlow before its options are read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What takes seconds to import, or most of half a second.
HEAVY = ("tensorflow", "keras", "keras_tuner", "matplotlib.pyplot", "scipy.stats", "sklearn", "torch")
#: A function for other processes, without options.
NOT_COMMANDS = {"benchmarks.fresh"}


def find_commands():
    """Every module that `python -m` runs, but for the tests' own."""
    for package in ("kerasbn", "examples", "tuning", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if '__name__ == "__main__"' in path.read_text():
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
                if name not in NOT_COMMANDS:
                    yield name


COMMANDS = list(find_commands())


def run(module, *arguments, flags=("-X", "importtime", "-m")):
    """A command, with the modules that it imported, and what it said without them."""
    done = subprocess.run(
        [sys.executable, *flags, module, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    line = r"^import time:.*\|\s+(\S+)\n"
    return (
        done.returncode,
        set(re.findall(line, done.stderr, re.M)),
        done.stdout + re.sub(line, "", done.stderr, flags=re.M),
    )


def test_every_command_is_looked_at():
    assert {"kerasbn", "tuning.study", "tuning.report", "benchmarks", "benchmarks.soak"} <= set(COMMANDS)
    assert {"examples.accelerate", "examples.inception.report", "examples.multi_worker.worker"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("option", "status", "said"), [("--help", 0, "usage: "), ("--nothing", 2, "error: ")])
def test_help_and_unknown_options(command, option, status, said):
    code, imported, output = run(command, option)
    assert code == status and said in output and f"python -m {command}" in output
    assert imported.isdisjoint(HEAVY)


WRONG = {
    "kerasbn": [
        ("dignose", "invalid choice: 'dignose'"),
        ("fold nowhere.keras --out out.keras", "There is no file nowhere.keras"),
        ("fold nowhere.keras --out out.h5", "--out must be a .keras file"),
        ("convert README.md --out out.keras", "The model must be a .keras file"),
        ("convert nowhere.keras --out out.keras --momentum 2", "must be a number from 0 to 1"),
    ],
    "examples.inception": [("--networks resnet", "invalid choice: 'resnet'")],
    "examples.understanding": [("--normalized first", "invalid choice: 'first'")],
    "examples.understanding.initialisation": [("--initializers he", "invalid choice: 'he'")],
    "examples.understanding.report": [("nowhere", "There are no results in nowhere")],
    "examples.accelerate.report": [("nowhere", "There are no results in nowhere")],
    "tuning.study": [
        ("--factors 2 1", "--factors must be"),
        ("--stable-steps 2", "--stable-steps must be 0 or at least 4"),
        ("--worker-id chief", "--chief HOST:PORT and --worker-id go together"),
    ],
    "tuning.report": [("nowhere", "There are no results in nowhere")],
    "benchmarks": [("--only speed", "invalid choice: 'speed'")],
    "benchmarks.models": [("--models VGG", "invalid choice: 'VGG'")],
    "benchmarks.kernels": [("--shapes 8x3x2", "must be BATCHxCHANNELS or")],
    "benchmarks.soak": [("--steps 40", "must be at least 80")],
    "benchmarks.plot": [("nowhere", "no JSON file in nowhere")],
    "benchmarks.tables": [("nowhere", "no JSON file in nowhere")],
}


@pytest.mark.parametrize(("command", "arguments", "said"), [(c, *case) for c, cases in WRONG.items() for case in cases])
def test_what_cannot_be_done(command, arguments, said):
    code, imported, output = run(command, *arguments.split())
    assert code == 2 and said in output
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("way", ["-m kerasbn", "-mkerasbn", "-sm kerasbn", "-smkerasbn", "-m kerasbn.__main__"])
def test_every_way_to_start_it(way):
    *flags, last = way.split()
    code, imported, output = run(last, "--version", flags=("-X", "importtime", *flags))
    assert code == 0 and re.search(r"^kerasbn \d+\.\d+\.\d+$", output, re.M)
    assert imported.isdisjoint(HEAVY)


def test_other_programs_keep_their_arguments(tmp_path):
    """`import kerasbn` is whole in a program with options of its own: all names, and models can be loaded."""
    (tmp_path / "kerasbn_user.py").write_text(
        "import sys\n"
        "import kerasbn\n"
        "import keras\n"
        "keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm()]).save(sys.argv[2])\n"
        "names = set(kerasbn.__all__) <= vars(kerasbn).keys()\n"
        "print(names, type(keras.saving.load_model(sys.argv[2]).layers[-1]) is kerasbn.BatchNorm)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "kerasbn_user", "--help", str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.stdout == "True True\n", done.stderr
