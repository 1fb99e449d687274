"""What the documents claim: commands are those that are run, code runs, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(p for p in ROOT.rglob("*.md") if "node_modules" not in p.parts and ".venv" not in p.parts)


def blocks(language: str, document: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


def run(document: str) -> dict:
    names: dict = {}
    for code in blocks("python", document):
        exec(code, names)
    return names


def test_set_up_is_two_commands_and_ci_runs_them():
    commands = [block.strip() for block in blocks("bash")]
    assert commands == [
        'pip install -e ".[examples]" && python -m examples.mnist_sigmoid',
        'pip install -e ".[test]" && pytest',
    ]
    script = (ROOT / ".ci" / "run").read_text()
    for command in commands:
        install, run = command.split(" && ")
        assert re.search(re.escape(install) + r" && timeout \d+ " + re.escape(run), script), command


def test_python_blocks_run_one_after_another():
    names = run("README.md")
    assert type(names["new"].layers[-1]) is names["BatchNorm"]


def test_what_the_page_on_serving_shows():
    names = run("docs/serving.md")
    assert names["averages"][1] < 0.87 < 0.9 < names["population"][1]
    assert names["from_torch"].layers[1].momentum == 0.9


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
    for target in targets:
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
