"""JSON files into dataclasses: what is not as the class says is refused, and where it is."""

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints


def read(path: Path) -> Any:
    """What is in a JSON file.

    Raises:
        OSError: If there is none that can be read.
        ValueError: If it is not JSON, or has numbers that are not finite, which JSON has not.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(path.read_text(), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parsed(kind: Any, value: Any, where: str = "the content") -> Any:
    """`value` from JSON as a `kind`: a dataclass, a type of JSON, or lists, tuples, dictionaries and unions of these.

    Raises:
        ValueError: If it is not one; the message names `where`.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is dict:
        each = _instance(dict, value, where).items()
        return {name: parsed(arguments[1], item, f"{where}[{name!r}]") for name, item in each}
    if origin in (list, tuple):
        items = _instance(list, value, where)
        if origin is tuple and arguments[-1] is not Ellipsis and len(items) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries, and has {len(items)}")
        kinds = arguments if origin is tuple and arguments[-1] is not Ellipsis else arguments[:1] * len(items)
        return origin(parsed(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, items, strict=True)))
    return _instance(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    given, hints = _instance(dict, value, where), get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init}
    unknown = sorted(given.keys() - known.keys())
    missing = [
        name
        for name, field in known.items()
        if name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    if unknown or missing:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"{where} {' and '.join(parts)}")
    return kind(**{name: parsed(hints[name], item, f"{where}.{name}") for name, item in given.items()})


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest[:-1]:
        try:
            return parsed(kind, value, where)
        except ValueError:
            continue
    return parsed(rest[-1], value, where)


def _instance(kind: Any, value: Any, where: str) -> Any:
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        shown = repr(value)
        shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
        raise ValueError(f"{where} must be of type {kind.__name__}, and is {shown}")
    return value
