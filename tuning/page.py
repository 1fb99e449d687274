"""One page of HTML that holds all of a report, pictures too: it needs no network and no other file."""

import base64
import html
from collections.abc import Sequence
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 66rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.75rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
tr.diverged td { color: #a3123a; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } img { background: #fff; }
  th, td { border-color: #444; } tr.diverged td { color: #ff8aa5; }
}
"""


def page(
    title: str,
    conclusion: str,
    figures: Sequence[tuple[str, str, bytes]],
    table: Sequence[Sequence[str]],
    facts: dict[str, Any],
) -> str:
    """The page as text.

    Args:
        title: Its title.
        conclusion: What it says, in sentences.
        figures: For each picture its heading, a description for those who do not see it, and the PNG.
        table: Lines of cells, the first with the names of the columns.
        facts: What the study was made with.
    """
    pictures = "\n".join(
        f'<h2>{_text(heading)}</h2>\n<figure><img alt="{_text(description)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
        for heading, description, png in figures
    )
    known = [(_text(name), _text(value)) for name, value in facts.items() if value is not None]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<p>{_text(conclusion)}</p>
{pictures}
<h2>All trials</h2>
<div class="wide"><table>
<thead><tr>{_cells("th", table[0])}</tr></thead>
<tbody>
{"".join(f"<tr{_mark(row)}>{_cells('td', row)}</tr>" for row in table[1:])}
</tbody>
</table></div>
<h2>Settings</h2>
<div class="wide"><table><tbody>
{"".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in known)}
</tbody></table></div>
</body>
</html>
"""


def _mark(row: Sequence[str]) -> str:
    return ' class="diverged"' if any("first at step" in cell for cell in row) else ""


def _cells(tag: str, row: Sequence[str]) -> str:
    return "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in row)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
