"""The site that is made of the documents: every page in it, every public name in its reference, nothing left raw."""

import functools
import html
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kerasbn
import kerasbn.tuner
from tests.test_documents import DOCUMENTS, ROOT, text

PAGES = [document for document in DOCUMENTS if "results" not in Path(document).parts]  # those are of experiments

MODULES = [each for each in map(kerasbn.__dict__.get, kerasbn.__all__) if inspect.ismodule(each)] + [kerasbn.tuner]
DIRECTIVE = re.compile(r"^::: (kerasbn\.[\w.]+)$", re.M)
REFERENCE = {path: DIRECTIVE.findall(text(path)) for path in PAGES if path.startswith("docs/api/")}


def resolve(name: str):
    """The object of that name, a module before all else, as mkdocstrings finds it."""
    module = name
    while module not in sys.modules:
        module = module.rpartition(".")[0]
    return functools.reduce(getattr, name.removeprefix(module).split(".")[1:], sys.modules[module])


@pytest.mark.parametrize("module", [kerasbn, *MODULES], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module):
    documented = [resolve(name) for names in REFERENCE.values() for name in names]
    public = {name: getattr(module, name) for name in module.__all__ if name != "__version__"}
    objects = {name: value for name, value in public.items() if not inspect.ismodule(value)}
    assert not [name for name, value in objects.items() if all(value is not each for each in documented)]


def test_nothing_is_in_the_reference_twice():
    names = [resolve(name) for names in REFERENCE.values() for name in names]
    assert len(set(map(id, names))) == len(names)


def test_the_navigation_names_documents():
    named = re.findall(r"^ *- [^#]*?: (\S+\.md)$", text("mkdocs.yml"), re.M)
    assert set(named) <= set(PAGES) and {"README.md", *REFERENCE} <= set(named)


def test_documents_that_are_not_named_are_at_the_end(tmp_path):
    pytest.importorskip("mkdocs")
    for name in ("docs/a.md", "docs/new.md", "examples/b/README.md", "examples/new/README.md", "examples/b/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    nav = [{"How and why": [{"A": "docs/a.md"}]}, {"Experiments": [{"B": "examples/b/README.md"}]}]
    load("site_pages").add_unnamed(nav, tmp_path)
    assert nav[0]["How and why"] == [{"A": "docs/a.md"}, "docs/new.md"]
    assert nav[1]["Experiments"] == [{"B": "examples/b/README.md"}, "examples/new/README.md"]


def test_what_pages_link_to_comes_with_them(tmp_path):
    pytest.importorskip("mkdocs")
    pages = load("site_pages")
    (tmp_path / "docs").mkdir()
    links = "[a](docs/a.md#there) ![p](docs/p.png) [web](https://example.org/x.md) [no](n.md)"
    (tmp_path / "README.md").write_text(links)
    (tmp_path / "docs" / "a.md").write_text("[back](../README.md) [data](d.json)")
    for name in ("p.png", "d.json", "unused.png"):
        (tmp_path / "docs" / name).write_text("")
    nav = [{"Home": "README.md"}]
    assert pages.reachable(pages.named(nav), tmp_path) == ["README.md", "docs/a.md", "docs/p.png", "docs/d.json"]


def test_docstrings_are_made_what_griffe_reads():
    pytest.importorskip("griffe")
    change = load("site_docstrings").for_griffe
    assert change("One.\n\nExample:\n>>> 1\n1\n>>> 2\n2\n\nReference:\n    A.") == (
        "One.\n\nExamples:\n    >>> 1\n    1\n    >>> 2\n    2\n\nReference:\n    A."
    )
    assert change("One.\n\nExample:\n    >>> 1\n    1") == "One.\n\nExamples:\n    >>> 1\n    1\n"
    assert change("See `kerasbn.fold`, not `kerasbn.moments`.\n\n    `kerasbn.fold`") == (
        "See [`kerasbn.fold`][], not `kerasbn.moments`.\n\n    `kerasbn.fold`"
    )
    assert change("One.\n\nCall arguments:\n    x: It.") == "One.\n\nKeyword Args: Call arguments\n    x: It."


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[str, str]:
    """The pages, built without a warning, by the address in the site."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    return {str(page.relative_to(folder)): page.read_text(encoding="utf-8") for page in folder.rglob("*.html")}


def test_every_document_is_a_page(site):
    def page(document: str) -> str:
        path = Path(document)
        return str(path.parent / ("" if path.name == "README.md" else path.stem) / "index.html")

    wanted = {*map(page, PAGES), "404.html"}
    assert wanted <= set(site)
    assert all("/results/" in more for more in set(site) - wanted)  # tables that documents link to


def test_nothing_is_fetched_from_elsewhere(site):
    for page, content in site.items():
        assert not re.findall(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>", content), page


def test_nothing_is_left_raw(site):
    """Markup of Markdown or docstrings in what is read."""
    for page, content in site.items():
        if page == "404.html":
            continue
        article = content[content.index("<article") : content.index("</article>")]
        prose = re.sub(r"<(pre|code)\b.*?</\1>", "", article, flags=re.S)
        prose = html.unescape(re.sub(r"<[^>]+>", "", prose))
        assert not re.findall(r".*(?:>>>|```|:::|::$|====|``|\*\*|\]\(|^ *\|.*\|).*", prose, re.M), page
        lists = [item for item in re.findall(r"<p>.*?</p>", article, re.S) if re.search(r"\n *(?:[-*]|\d+\.) ", item)]
        assert not lists, page  # a list needs an empty line before it


def test_the_reference_has_tables_of_arguments_and_examples(site):
    for path, names in REFERENCE.items():
        content = site[path.removesuffix(".md") + "/index.html"]
        for name in names:
            assert f'id="{name}"' in content, name
        headings = re.findall(r'<h[2-6] id="([^"]*)"', content)
        assert all(heading.startswith("kerasbn.") for heading in headings), headings  # none is a comment in code
    layers = site["docs/api/layers/index.html"]
    assert "virtual_batch_size" in layers and "Call arguments" in layers and "Examples" in layers
