"""What the documents claim: code runs, commands are there and have these options, links and names lead somewhere."""

import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "examples", "tuning")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
)


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(language: str, document: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(document), re.M | re.S)


#: What the code of a page is to end with, beside running; by the names that it defines.
OUTCOMES = {
    "README.md": lambda names: type(names["new"].layers[-1]) is names["BatchNorm"],
    "docs/serving.md": lambda names: (
        names["averages"][1] < 0.87 < 0.9 < names["population"][1] and names["from_torch"].layers[1].momentum == 0.9
    ),
}


@pytest.fixture
def as_in_a_new_process(tmp_path, monkeypatch):
    """A folder to write to, and what code may have set for all of Keras as it was."""
    monkeypatch.chdir(tmp_path)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if blocks("python", each)])
def test_python_blocks_run_one_after_another(document, as_in_a_new_process):
    names: dict = {}
    for number, code in enumerate(blocks("python", document), 1):
        exec(compile(code, f"{document}, block {number}", "exec"), names)
    assert OUTCOMES.get(document, bool)(names)


def test_outcomes_are_of_documents():
    assert set(OUTCOMES) <= set(DOCUMENTS)


def test_set_up_is_two_commands_and_ci_runs_them():
    commands = [block.strip() for block in blocks("bash", "README.md")]
    assert commands == [
        'pip install -e ".[examples]" && python -m examples.mnist_sigmoid',
        'pip install -e ".[test]" && pytest',
    ]
    script = text(".ci/run")
    for command in commands:
        install, run = command.split(" && ")
        assert re.search(re.escape(install) + r" && timeout \d+ " + re.escape(run), script), command


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if blocks("bash", each)])
def test_commands_are_there_and_have_these_options(document):
    """They are not run, as they may take hours; what they start is asked for its options."""
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    for block in blocks("bash", document):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True, timeout=10)
        for line in block.splitlines():
            for command in re.split(r" && |; ", line):
                words = shlex.split(command, comments=True)
                if words[:3] == ["pip", "install", "-e"]:
                    assert set(re.findall(r"[\w-]+", words[3].removeprefix("."))) <= set(extras), command
                while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                    del words[0]
                if words[:2] == ["python", "-m"]:
                    # The command line has a page of help for each of its commands.
                    own = [words[3]] if words[2] == "kerasbn" else []
                    options = [word.split("=")[0] for word in words if word.startswith("--")]
                    missing = [option for option in options if option not in help_of(words[2], *own)]
                    assert not missing, command


def help_of(module: str, *arguments: str) -> str:
    """What ``python -m module --help`` prints; in this process, which has TensorFlow already."""
    said, before = io.StringIO(), sys.argv
    sys.argv = [module, *arguments, "--help"]
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: another test has imported it
            runpy.run_module(module, run_name="__main__")
    finally:
        sys.argv = before
    assert not end.value.code
    return said.getvalue()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_are_those_of_files_modules_and_tests(document):
    content = text(document)
    for module in re.findall(r"python -m ([\w.]+\w)", content):
        assert importlib.util.find_spec(module), module
    folders = "kerasbn|tests|examples|tuning|benchmarks|docs"
    for path, test in re.findall(rf"`((?:{folders})/[\w./]+\.\w+)(?:::(\w+))?`", content):
        assert (ROOT / path).is_file(), path
        assert not test or re.search(rf"^ *def {test}\b", text(path), re.M), f"{path}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text(document))
    for target in targets:
        if not target.startswith("http"):
            assert (ROOT / document).parent.joinpath(target).exists(), target
