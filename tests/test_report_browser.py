"""The page in a real browser, from file://: charts, clicks, dark, paper, and strangers' names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, browser
from reports import make_run
from test_report import hostile_run, macro, make_sweep, methods

from nasrun.report import reports
from nasrun.report.run_files import read_jobs
from nasrun.run import layout

pytestmark = pytest.mark.soak  # a browser starts for a second; .ci/run runs them all

DARK, LIGHT = "rgb(20, 23, 27)", "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as opened:
        yield opened


def written(run: Path, **settings: Any) -> Path:
    make_run(run, **settings)
    return reports.write(reports.of_run(run, macro()), run / layout.REPORT_PAGE)[0]


def test_a_page_opens_from_a_file(chrome: Any, tmp_path: Path) -> None:
    """Its charts have their points, a click shows the command, the dark page is dark."""
    tab = Tab(chrome.new_page()).open(written(tmp_path / "run", count=40))
    buttons = "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    titles = " ".join(tab.ask(buttons))
    assert "Download" in titles and "loud" not in titles and "hare" not in titles
    counts = tab.ask(
        "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.point').length)"
    )
    assert counts[0] == 40  # 39 and the winner
    assert tab.ask("document.querySelectorAll('.plot').length") == 4
    lines = (
        "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.js-line').length)"
    )
    assert all(count >= 1 for count in tab.ask(lines))
    tab.ask(
        "document.querySelector('.plot').emit('plotly_click', {points: [{customdata: 'trial=5'}]})"
    )
    shown = tab.page.locator(".chosen code").inner_text()
    assert shown == f"nasrun retrain from={tmp_path / 'run'} trial=5"
    ground = "getComputedStyle(document.body).backgroundColor"
    text = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    assert (tab.ask(ground), tab.ask(text)) == (LIGHT, "rgb(29, 35, 43)")
    tab.page.emulate_media(color_scheme="dark")
    assert (tab.ask(ground), tab.ask(text)) == (DARK, "rgb(228, 232, 237)")
    assert tab.complaints == []


def test_nothing_of_a_stranger_runs(chrome: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    hostile_run(run)
    reports.write(reports.of_run(run, None), run / layout.REPORT_PAGE)
    tab = Tab(chrome.new_page()).open(run / layout.REPORT_PAGE)
    tab.page.locator(".plot").first.hover()
    assert tab.ask("window.owned") is None
    assert tab.ask("document.querySelectorAll('script').length") == 3
    assert tab.complaints == []
    # A page in which markup had got through would still run nothing: its policy refuses.
    path = run / layout.REPORT_PAGE
    path.write_text(
        path.read_text().replace("<footer>", "<script>window.owned = 1</script><footer>")
    )
    tab = Tab(chrome.new_page()).open(path)
    assert tab.ask("window.owned") is None and "Content Security Policy" in tab.complaints[0]


def test_a_thousand_trials_and_paper(chrome: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "run", count=1000)
    assert path.stat().st_size < 5e6
    tab = Tab(chrome.new_page()).open(path)
    drawn = tab.ask("document.querySelector('.plot').querySelectorAll('.point').length")
    data = tab.ask("document.querySelector('.plot').data.map(t => t.x.length)")
    assert drawn == data[0] + data[2] > 900
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.ask("getComputedStyle(document.body).backgroundColor") == LIGHT
    assert len(tab.page.pdf(prefer_css_page_size=True)) > 10_000
    tab.ask("dispatchEvent(new Event('beforeprint'))")
    widths = tab.ask("[...document.querySelectorAll('.main-svg')].map(s => s.clientWidth)")
    assert max(widths) <= 680  # A4 without its margins
    assert tab.complaints == []


def test_a_sweep_in_the_browser(chrome: Any, tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", methods(1000))
    document = reports.of_jobs(read_jobs(tmp_path / "sweep"), tmp_path / "sweep")
    path = reports.write(document, tmp_path / "sweep" / layout.REPORT_PAGE)[0]
    tab = Tab(chrome.new_page()).open(path)
    points = tab.ask("document.querySelector('.plot').querySelectorAll('.point').length")
    assert points == 8 + 2  # each job, and two means
    assert tab.complaints == []
