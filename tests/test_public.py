"""What is public, and what a user's import brings in."""

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
        "uncompiled",
        "unfreeze",
    ]
    assert all(hasattr(kerasbn, name) for name in kerasbn.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", kerasbn.__version__)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_names_of_keras_or_tensorflow(path):
    text = path.read_text()
    if path.name == "xla.py":  # the one place, which says why
        text = re.sub(r"tf\.compat\.v1\.(get_default_graph|AttrValue)|_get_control_flow_context", "", text)
    assert not re.search(
        r"keras\.src|keras_tuner\.src|tensorflow\.python|tf\.__internal__|tf\.compat|_control_flow_context", text
    )


@pytest.mark.parametrize("name", ["BatchNormalization", "SyncBatchNormalization"])
def test_what_others_call_the_layer(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'. Use `kerasbn.BatchNorm") as caught:
        getattr(kerasbn, name)
    assert caught.value.name == name
    with pytest.raises(AttributeError, match=r"^module 'kerasbn' has no attribute 'other'\.$"):
        _ = kerasbn.other
    assert not hasattr(kerasbn, name)


def test_representation_has_the_name_of_the_class():
    """And not the one that files of weights need."""

    class Own(kerasbn.BatchNorm):
        pass

    layer, other = kerasbn.BatchNorm(name="a"), Own(name="b")
    assert repr(layer) == str(layer) == "<BatchNorm name=a, built=False>"
    assert repr(other) == "<Own name=b, built=False>"
    assert kerasbn.BatchNorm().name.startswith("batch_normalization")


def test_other_backends_are_refused_by_name():
    """The message comes before TensorFlow kernels meet tensors of another library."""
    program = (
        "import types, sys; k = types.ModuleType('keras'); k.backend = types.SimpleNamespace(backend=lambda: 'jax'); "
        "sys.modules['keras'] = k; import kerasbn"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "'jax'" in done.stderr and "KERAS_BACKEND=tensorflow" in done.stderr
