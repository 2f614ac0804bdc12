"""The page: one HTML file that needs no network, and runs no script but its own two.

Run directories may be a stranger's. Every text is escaped by the template, the numbers of the
charts are JSON in which no markup can end, and the page's policy names its scripts by their
digests, so that a browser would refuse any other.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from nasrun import __version__
from nasrun.report.document import Chart, Document

FOLDER = Path(__file__).parent

GENERATOR = "nasrun report"
"""The words by which a file is known as a report of ours."""


def page(document: Document) -> str:
    """Return the page of a document."""
    charts = [
        block for section in document.shown for block in section.blocks if isinstance(block, Chart)
    ]
    scripts = [_text("plotly/plotly-basic.min.js")] if charts else []
    scripts.append(_text("templates/page.js"))
    html: str = _template().render(
        document=document,
        generator=f"{GENERATOR} {__version__}",
        style=_text("templates/page.css"),
        scripts=scripts,
        policy=_policy(scripts),
        place_of=lambda chart: next(i for i, each in enumerate(charts) if each is chart),
        charts=embedded([_plain(chart) for chart in charts]),
    )
    return html


def embedded(value: Any) -> str:
    """Return JSON that can stand within a script of a page: no tag begins or ends in it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(chart: Chart) -> dict[str, Any]:
    return {
        "traces": chart.traces,
        "layout": chart.layout,
        "height": chart.height,
        "command": chart.command,
    }


def _policy(scripts: list[str]) -> str:
    """Return the policy of the page's contents: nothing from elsewhere, and these scripts alone."""
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _text(name: str) -> str:
    # Browsers read line ends as \n before they compute digests.
    return (FOLDER / name).read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def _template() -> Any:
    import jinja2  # slow to import

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = lambda text: text.partition(" (")[0]
    environment.filters["interval"] = lambda text: "".join(text.partition(" (")[1:]).strip()
    return environment.get_template("page.html.jinja")
