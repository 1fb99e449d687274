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
    assert kerasbn.__all__ == [
        "Affine",
        "BatchNorm",
        "LocalResponseNormalization",
        "__version__",
        "accelerate",
        "batch_normalize",
        "callbacks",
        "convert",
        "data",
        "diagnose",
        "distribute",
        "find_learning_rate",
        "fold",
        "freeze",
        "from_torch_state",
        "monitors",
        "recalibrate",
        "schedules",
        "to_keras",
        "transforms",
        "unfreeze",
    ]
    assert all(hasattr(kerasbn, name) for name in kerasbn.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", kerasbn.__version__)


PUBLIC = {
    "Affine": (kerasbn.Affine, kerasbn.Affine.__init__),
    "BatchNorm": (kerasbn.BatchNorm, kerasbn.BatchNorm.__init__),
    "LocalResponseNormalization": (
        kerasbn.LocalResponseNormalization,
        kerasbn.LocalResponseNormalization.__init__,
    ),
    "accelerate": (kerasbn.accelerate,) * 2,
    "diagnose": (kerasbn.diagnose,) * 2,
    "find_learning_rate": (kerasbn.find_learning_rate,) * 2,
    "recalibrate": (kerasbn.recalibrate,) * 2,
    "freeze": (kerasbn.freeze,) * 2,
    "unfreeze": (kerasbn.unfreeze,) * 2,
    "PopulationStatistics": (kerasbn.callbacks.PopulationStatistics,) * 2,
    "DropoutRemoval": (kerasbn.callbacks.DropoutRemoval,) * 2,
    "LearningRateAcceleration": (kerasbn.callbacks.LearningRateAcceleration,) * 2,
    "StopOnDivergence": (kerasbn.callbacks.StopOnDivergence,) * 2,
    "Accelerated": (kerasbn.schedules.Accelerated,) * 2,
    "accelerated_epochs": (kerasbn.schedules.accelerated_epochs,) * 2,
    "shuffle_within_shards": (kerasbn.data.shuffle_within_shards,) * 2,
    **{name: (getattr(kerasbn.transforms, name),) * 2 for name in kerasbn.transforms.__all__ if name != "Change"},
    **{name: (getattr(kerasbn.monitors, name),) * 2 for name in kerasbn.monitors.__all__ if name != "Gradients"},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstrings_have_an_example_and_all_arguments(name):
    """The examples are run as doctests; here only that they are there."""
    documented, function = PUBLIC[name]
    doc = inspect.getdoc(documented)
    for section in ("Args:", "Raises:", ">>>", "Reference:"):
        assert section in doc, section
    for argument in inspect.signature(function).parameters.values():
        stars = {argument.VAR_KEYWORD: "**", argument.VAR_POSITIONAL: "*"}.get(argument.kind, "")
        assert argument.name == "self" or f"\n    {stars}{argument.name}: " in doc, argument.name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_names_of_keras_or_tensorflow(path):
    text = path.read_text()
    if path.name == "xla.py":  # the one place, which says why
        text = re.sub(r"tf\.compat\.v1\.get_default_graph|_get_control_flow_context", "", text)
    assert not re.search(
        r"keras\.src|keras_tuner\.src|tensorflow\.python|tf\.__internal__|tf\.compat|_control_flow_context", text
    )


def test_other_backends_are_refused_by_name():
    """The message comes before TensorFlow kernels meet tensors of another library."""
    program = (
        "import types, sys; k = types.ModuleType('keras'); k.backend = types.SimpleNamespace(backend=lambda: 'jax'); "
        "sys.modules['keras'] = k; import kerasbn"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "'jax'" in done.stderr and "KERAS_BACKEND=tensorflow" in done.stderr
