"""What is public, and what a user's import brings in."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kerasbn

PACKAGE = Path(kerasbn.__file__).parent


def test_public_names():
    assert kerasbn.__all__ == ["BatchNorm", "__version__", "callbacks", "find_learning_rate", "schedules"]
    assert all(hasattr(kerasbn, name) for name in kerasbn.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", kerasbn.__version__)


@pytest.mark.parametrize(
    "public",
    [
        kerasbn.BatchNorm,
        kerasbn.callbacks.DropoutRemoval,
        kerasbn.callbacks.LearningRateAcceleration,
        kerasbn.find_learning_rate,
        kerasbn.schedules.Accelerated,
        kerasbn.schedules.accelerated_epochs,
    ],
)
def test_public_docstrings_have_an_example(public):
    """The examples are run as doctests; here only that they are there."""
    documentation = inspect.getdoc(public)
    assert ">>>" in documentation and "https://arxiv.org/abs/" in documentation
    for argument in inspect.signature(public).parameters.keys() - {"kwargs"}:
        assert f"    {argument}: " in documentation


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_names_of_keras_or_tensorflow(path):
    text = path.read_text()
    if path.name == "xla.py":  # the one place, which says why
        text = re.sub(r"tf\.compat\.v1\.get_default_graph|_get_control_flow_context", "", text)
    assert not re.search(r"keras\.src|tensorflow\.python|tf\.__internal__|tf\.compat|_control_flow_context", text)


def test_other_backends_are_refused_by_name():
    """The message comes before TensorFlow kernels meet tensors of another library."""
    program = (
        "import types, sys; k = types.ModuleType('keras'); k.backend = types.SimpleNamespace(backend=lambda: 'jax'); "
        "sys.modules['keras'] = k; import kerasbn"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "'jax'" in done.stderr and "KERAS_BACKEND=tensorflow" in done.stderr
