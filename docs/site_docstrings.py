"""An extension of griffe, which reads the docstrings for the reference: makes of them what it expects.

The docstrings are as `help()` shows them best, and doctest runs them. griffe knows examples by a plural and an
indentation, and of the arguments of a call nothing. Names that the reference has become links.
"""

import re
from pathlib import Path
from typing import Any

import griffe

PAGES = Path(__file__).parent / "api"
NAMES = {name for page in PAGES.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)}


class Docstrings(griffe.Extension):
    """Changes the docstrings that griffe has read, before it parses them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes that of one object."""
        if obj.docstring is None:
            return
        if obj.name == "__init__":  # says only that all is said at the class
            obj.docstring = None
            return
        obj.docstring.value = for_griffe(obj.docstring.value)


def for_griffe(docstring: str) -> str:
    """`docstring` with sections that griffe knows, and its examples in a section."""
    docstring = "\n\n".join(map(_linked, docstring.split("\n\n")))
    docstring = docstring.replace("\nCall arguments:\n", "\nKeyword Args: Call arguments\n")
    return re.sub(r"^Examples?:\n((?:.+\n?|\n(?=>>>))+)", _examples, docstring, flags=re.M)


def _linked(paragraph: str) -> str:
    """`paragraph` with links from the names that the reference has, unless it is code."""
    if paragraph.startswith((" ", "Example", ">>>")):
        return paragraph
    return re.sub(r"`(kerasbn\.[\w.]+)`", lambda found: f"[{found[0]}][]" if found[1] in NAMES else found[0], paragraph)


def _examples(match: re.Match[str]) -> str:
    lines = match[1].splitlines()
    if any(line and not line.startswith(" ") for line in lines):
        lines = [f"    {line}" if line else line for line in lines]
    return "\n".join(["Examples:", *lines, ""])
