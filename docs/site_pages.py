"""A hook of MkDocs: the site is made of the repository's own files, each where it lies.

A link from one document to another is relative to the files, so that it works on any code host. For it to work in the
site as well, the site has the folders of the repository: pages are the documents that `nav` in mkdocs.yml names, and
what they link to, such as pictures, comes with them. Nothing is copied and no link is rewritten.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Where documents that `nav` does not name go, so that to write one is enough.
SECTIONS = {"examples/*/README.md": "Experiments", "docs/*.md": "How and why"}
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def on_config(config: Any) -> Any:
    """Adds the documents that `nav` does not name to the ends of its sections."""
    add_unnamed(config.nav, ROOT)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Puts the documents of the repository in the place of what MkDocs found in its folder of documents."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in reachable(named(config.nav), ROOT):
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def add_unnamed(nav: list[dict[str, Any]], root: Path) -> None:
    """Adds the documents in `root` that `nav` does not name, in place."""
    for pattern, title in SECTIONS.items():
        section = next(part[title] for part in nav if title in part)
        found = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
        section += [path for path in found if path not in named(nav)]


def named(nav: Any) -> list[str]:
    """The paths in a `nav`."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [path for part in parts for path in named(part)]


def reachable(paths: Iterable[str], root: Path) -> list[str]:
    """`paths`, and the files in `root` that those of them which are documents link to, directly or not."""
    found: dict[str, None] = {}
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        if path in found or not (root / path).is_file():  # a link that leads nowhere is MkDocs's to report
            continue
        found[path] = None
        if path.endswith(".md"):
            targets = LINK.findall((root / path).read_text(encoding="utf-8"))
            folder = posixpath.dirname(path)
            waiting += [posixpath.normpath(posixpath.join(folder, target)) for target in targets if ":" not in target]
    return list(found)
