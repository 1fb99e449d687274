"""What the docstrings of all that is public say: the arguments that there are, what comes back, an example, a source.

The examples are run as doctests; here only that they are there.
"""

import dataclasses
import inspect
import re

import pytest

from tests.test_site import REFERENCE, resolve

DOCUMENTED = {name: resolve(name) for names in REFERENCE.values() for name in names}

#: Needs processes that are started for it.
WITHOUT_EXAMPLE = {"kerasbn.distribute.MultiWorkerMirroredStrategy"}

#: Check nothing themselves.
WITHOUT_ERRORS = {"kerasbn.acceleration.Report", "kerasbn.uncompiled"}

#: Keras's and TensorFlow's with one thing mended, or what is returned, not what a paper describes.
WITHOUT_SOURCE = {
    "kerasbn.acceleration.Report",
    "kerasbn.distribute.BackupAndRestore",
    "kerasbn.distribute.JoinedLoss",
    "kerasbn.distribute.MirroredStrategy",
    "kerasbn.distribute.MultiWorkerMirroredStrategy",
    "kerasbn.uncompiled",
}


def is_record(value) -> bool:
    """Whether it is what a function returns, made of named fields; or the class has no constructor of its own."""
    return inspect.isclass(value) and (dataclasses.is_dataclass(value) or issubclass(value, tuple | list))


def has_own_arguments(value) -> bool:
    return inspect.isfunction(value) or "__init__" in vars(value)


CALLED = {name: value for name, value in DOCUMENTED.items() if not is_record(value) and has_own_arguments(value)}
INHERITED = {name: value for name, value in DOCUMENTED.items() if not is_record(value) and name not in CALLED}
RECORDS = {name: value for name, value in DOCUMENTED.items() if is_record(value)}


def section(doc: str, title: str) -> list[str]:
    """The names in a section, with their stars."""
    found = re.search(rf"^{title}:\n((?:(?: {{4}}.*)?\n?)+)", doc, re.M)
    return re.findall(r"^ {4}(\*{0,2}\w+): ", found[1], re.M) if found else []


def arguments(value) -> list[str]:
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    return [stars.get(each.kind, "") + each.name for each in inspect.signature(value).parameters.values()]


@pytest.mark.parametrize("name", CALLED)
def test_arguments_are_those_of_the_signature(name):
    value = CALLED[name]
    assert section(inspect.getdoc(value), "Args") == arguments(value)


@pytest.mark.parametrize("name", INHERITED)
def test_inherited_arguments_are_there_or_said_to_be_elsewhere(name):
    value = INHERITED[name]
    doc = inspect.getdoc(value)
    named = section(doc, "Args")
    assert set(named) - {"**kwargs"} <= set(arguments(value))
    assert named or any(f"see `{parent.__name__}`" in doc for parent in value.__mro__[1:])


@pytest.mark.parametrize("name", RECORDS)
def test_fields_are_those_of_the_record(name):
    value = RECORDS[name]
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
    else:
        fields = list(getattr(value, "_fields", ()))
    assert section(inspect.getdoc(value), "Attributes") == fields


@pytest.mark.parametrize("name", {**CALLED, **INHERITED})
def test_sections(name):
    value, doc = DOCUMENTED[name], inspect.getdoc(DOCUMENTED[name])
    # A tuner of Keras Tuner says what is new in it at one place, with the example.
    elsewhere = "see `DivergenceAware`" in doc
    assert "\n>>> " in doc or "\n    >>> " in doc or name in WITHOUT_EXAMPLE or elsewhere
    assert "\nReference:\n" in doc or name in WITHOUT_SOURCE or elsewhere
    if inspect.isfunction(value):
        returns_something = inspect.signature(value).return_annotation not in (None, "None")
        assert ("\nReturns:\n" in doc) == returns_something
    assert "\nRaises:\n" in doc or name in WITHOUT_ERRORS or name in INHERITED


def test_exceptions_are_of_what_there_is():
    assert WITHOUT_EXAMPLE | WITHOUT_SOURCE | WITHOUT_ERRORS <= set(DOCUMENTED)
