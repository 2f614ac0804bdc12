"""What a user sees: the display at 80 columns, lines without a terminal, the box, and the log."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from helpers import CPU
from rich.console import Console
from rich.table import Table

from nasrun.errors import UserError
from nasrun.run import screen as screens
from nasrun.run.commands import command, shown
from nasrun.run.end_box import MAX_ROWS, RunEnd, duration, first_known
from nasrun.run.run import CheckpointEvery, Run
from nasrun.run.said import SaidLog
from nasrun.run.screen import Screen
from nasrun.run.stages import PlannedStage

NAMES = ("loss", "accuracy", "lr", "entropy", "parameter_free", "skipped", "images_at_once", "more")
METRICS = dict.fromkeys(NAMES, 0.123456)


class Clock:
    """The time, as the screen reads it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(screens.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def terminal(width: int = 80, encoding: str = "utf-8", *, real: bool = True) -> Screen:
    """A screen that writes into memory."""
    screen = Screen()
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    screen.console = Console(
        file=file, width=width, force_terminal=real, highlight=False, soft_wrap=True
    )
    return screen


def display(screen: Screen) -> list[str]:
    """The lines of the display as they are now."""
    text = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding=screen.console.encoding),
        width=screen.console.width,
        color_system=None,
    )
    with text.capture() as shown:
        text.print(screen)
    return shown.get().splitlines()


PLAN = [PlannedStage("supernet/round0", 2000, "steps", 2), PlannedStage("retrain", 90, "steps", 1)]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_at_80_columns_bar_count_and_time_stay_and_metrics_are_cut(
    encoding: str, clock: Clock
) -> None:
    screen = terminal(80, encoding)
    screen.task = "search"
    screen.expect(PLAN)
    with screen.stage("supernet/round0", 2000) as stage:
        stage.advance(0, {})
        clock.now += 100
        stage.advance(1000, METRICS)
        whole, own = display(screen)
        assert len(own) < 80 and len(whole) < 80
        bar = "=" * 10 + "-" * 10 if encoding == "ascii" else "━" * 10 + "─" * 10
        assert f"supernet/round0  {bar}  1,000/2,000  2 min left  loss 0.1235 " in own
        assert not own.endswith("more 0.1235")
        # 1,000 steps of 0.1 s, and 90 of half the work
        assert whole.split() == ["search", *whole.split()[1:2], "49", "%", "1:40", *left(105)]
        # A long step: the elapsed time goes on, and the time left falls.
        clock.now += 1
        again = display(screen)
        assert again[0] != whole and "1:41" in again[0]
        assert stage.clock.shown(clock.now) > stage.clock.position / 2000  # the bar goes on too
        clock.now += 50
        assert "49 s left" in display(screen)[1]
    screen.close()


def left(seconds: int) -> list[str]:
    return ["about", f"{seconds / 60:.0f}", "min", "left"]


def test_a_narrow_terminal_has_whole_lines_too(clock: Clock) -> None:
    screen = terminal(20)
    screen.expect(PLAN)
    with screen.stage("supernet/round0", 2000) as stage:
        stage.advance(3, METRICS)
        assert all(len(line) < 20 for line in display(screen))
    screen.close()


def test_stages_within_a_stage_have_lines_of_their_own_and_leave_none(
    clock: Clock, tmp_path: Path
) -> None:
    screen = terminal(real=False)
    screen.log.open(tmp_path, "search", go_on=False)
    with screen.stage("shortlist", 4) as outer:
        outer.advance(1, {})
        with screen.stage("standalone/ab", 20) as inner:
            clock.now += 30
            inner.advance(10, {"loss": 1.0})
            outer_line, inner_line = display(screen)
            assert outer.clock.position == 1.5
            assert "shortlist" in outer_line and "1/4" in outer_line
            assert "standalone/ab" in inner_line and "10/20" in inner_line
    said = (tmp_path / "log.txt").read_text()
    assert "standalone/ab  10/20  30 s, about 30 s left  loss 1\n" in said  # while it lasted
    assert said.count("standalone") == 1


def test_without_a_terminal_lines_tell_the_total(clock: Clock, tmp_path: Path) -> None:
    screen = terminal(real=False)
    screen.task = "search"
    screen.expect(PLAN)
    screen.log.open(tmp_path, "nasrun search", go_on=False)
    with screen.stage("supernet/round0", 2000) as stage:
        stage.advance(0, {})
        clock.now += 20
        stage.advance(200, {})
        clock.now += 20
        stage.advance(200, {"loss": 1.0})
    screen.close()
    heading, line, end = (tmp_path / "log.txt").read_text().splitlines()
    assert heading.endswith("  nasrun search")
    assert line == (
        "  supernet/round0  400/2000  40 s, about 160 s left  loss 1  "
        "(search: 20 %, about 3 min left)"
    )
    assert end == "  supernet/round0  400/2000  40.0 s  loss 1"


def test_a_stage_that_pauses_leaves_one_line_when_it_is_over(clock: Clock, tmp_path: Path) -> None:
    screen = terminal(real=False)
    for begin in (0, 5):
        with screen.stage("retrain", 10) as stage:
            stage.advance(begin, {})
            clock.now += 2
            stage.advance(5, {})
    with screen.stage("batch norm", 4) as stage:
        stage.advance(2, {})
    screen.rest()
    screen.log.open(tmp_path, "", go_on=False)
    said = (tmp_path / "log.txt").read_text().splitlines()[1:]
    assert said == ["  retrain  10/10  4.0 s", "  batch norm  2/4  0.0 s"]


# The log.


def test_the_log_keeps_all_that_was_said_also_before_there_was_a_place(tmp_path: Path) -> None:
    screen = terminal(30, real=False)
    screen.say("loading")
    table = Table("pick", "score")
    table.add_row("0", "97.5")
    screen.show(table)
    screen.log.open(tmp_path, "nasrun search", go_on=False)
    screen.say("\ud800 [bold]as it is[/]", "yellow")
    screen.close()
    said = (tmp_path / "log.txt").read_text()
    assert said.index("loading") < said.index("97.5") < said.index("\\ud800 [bold]as it is[/]\n")
    assert "\x1b" not in said


@pytest.mark.parametrize("cut", [0, 3])
def test_a_run_that_goes_on_adds_to_its_log(cut: int, tmp_path: Path) -> None:
    for number, go_on in enumerate((False, True)):
        log = SaidLog()
        log.open(tmp_path, f"heading {number}", go_on=go_on)
        log.write(f"line {number}")
        log.close()
        path = tmp_path / "log.txt"
        path.write_bytes(path.read_bytes()[: -cut or None] if number == 0 else path.read_bytes())
    first, *between, second, last = path.read_text().splitlines()
    assert first.endswith("heading 0") and second.endswith("heading 1") and last == "line 1"
    assert between == [("line 0\n")[: -cut or None].rstrip("\n"), ""]
    log = SaidLog()
    log.open(tmp_path, "new", go_on=False)
    log.close()
    assert len(path.read_text().splitlines()) == 1


def test_a_log_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "log.txt").symlink_to(tmp_path / "outside")
    for go_on in (False, True):
        with pytest.raises(UserError, match="it is a link"):
            SaidLog().open(tmp_path, "", go_on=go_on)
    assert (tmp_path / "outside").read_text() == "precious"


# The box.


def test_the_box_has_eight_lines_at_most_and_what_is_long_stands_below() -> None:
    path = "/a/long/place/" + "x" * 80
    rows = [(f"label {index}", "words") for index in range(MAX_ROWS - 1)]
    commands = [shlex.join(["nasrun", "retrain", f"from={path} of J\u00fcrgen's", "seed=1"])]
    end = RunEnd("search done in 3 s", (*rows, ("files", path)), tuple(commands))
    lines = list(end.lines())
    box = [line for line in lines if line[0] in "╭│╰"]
    assert len(box) == 7  # and eight if all rows fit
    assert {len(line) for line in box} == {80}
    assert lines[-2] == f"files    {path}" and lines[-1] == commands[0]
    assert shlex.split(lines[-1])[2] == f"from={path} of J\u00fcrgen's"
    assert all(line.isascii() for line in RunEnd("t", (("a", "b"),), ()).lines(ascii_only=True))
    with pytest.raises(ValueError, match="6 at most"):
        RunEnd("t", (("a", "b"),) * (MAX_ROWS + 1), ())


def test_commands_of_tasks_that_are_not_there_are_left_out() -> None:
    commands = ["nasrun predict a", "nasrun nothing b", "tensorboard c", "nasrun test d", "x"]
    assert first_known(commands, ["predict", "test"]) == [
        "nasrun predict a",
        "tensorboard c",
        "nasrun test d",
    ]
    assert first_known(commands, None) == commands[:3]


def test_times_in_words() -> None:
    seconds = (0.4, 59.6, 133, 3599.7, 11_100, 187_000)
    assert [duration(each) for each in seconds] == [
        *("0 s", "1 min 00 s", "2 min 13 s", "1 h 00 min", "3 h 05 min", "2 d 3 h"),
    ]


def test_the_end_is_said_last_and_commands_are_of_tasks_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "outputs" / "a b"
    run = Run(
        place,
        task="search",
        config={},
        overrides=["seed=3"],
        seed=3,
        compute=CPU,
        checkpoint=CheckpointEvery(minutes=None, steps=None),
    )
    run.say_end()  # nothing to say
    run.begin()
    words = command("retrain", f"from={shown(place)}")
    run.show_end("search done", [("size", "1 M")], ["nasrun predict x", words])
    run.say("details")
    (place / "report.html").touch()
    run.say_end(["retrain"])
    run.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == words == "nasrun retrain 'from=outputs/a b'"
    assert [line for line in lines if "report  outputs/a b/report.html" in line]
    assert "predict" not in " ".join(lines)
    assert lines.index("details") < lines.index(next(line for line in lines if "done in" in line))
    logged = (place / "log.txt").read_text().splitlines()
    assert logged[0].endswith("  nasrun search seed=3") and logged[1:] == lines
