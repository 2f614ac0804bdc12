"""The screen: one display of the progress in a terminal, plain lines elsewhere; and its log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from nasrun.run.end_box import duration
from nasrun.run.progress import Progress, StageClock, TimeLeft
from nasrun.run.said import SaidLog, as_text
from nasrun.run.stages import PlannedStage

LINE_EVERY_SECONDS = 30
"""Seconds between two lines of progress, where there is no terminal."""

REFRESHES_PER_SECOND = 4
"""The display is shown anew so often, also while a step takes long."""

BAR_WIDTH = 20
"""Columns of a bar."""

NAME_WIDTH = 22
"""Columns of the name of a stage at most."""


def in_words(metrics: dict[str, float]) -> str:
    """Write metrics as names and values."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def left_in_words(left: TimeLeft | None) -> str:
    """Write the time that is left, as exactly as it is known."""
    if left is None:
        return ""
    return f"{'about ' if left.about else ''}{roughly(left.seconds)} left"


def roughly(seconds: float) -> str:
    """Write a time to come with two digits, which is more than is known of it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return duration(round(seconds / 60) * 60)


def clock_face(seconds: float) -> str:
    """Write a time that has passed as a clock does: 2:10, 1:02:10."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ScreenStage:
    """One stage on the screen, from where it begins or goes on to where it ends or pauses.

    outer: the stage within one step of which this one runs; None: it stands alone.
    ahead: steps that are done and counted later, each in its turn.
    """

    ahead = 0

    def __init__(self, screen: Screen, clock: StageClock, outer: ScreenStage | None) -> None:
        self.screen, self.clock, self.outer = screen, clock, outer
        self.done = 0
        self.metrics: dict[str, float] = {}
        self._first = True

    def advance(self, steps: int, metrics: dict[str, float]) -> None:
        """Count steps; the first call tells what was done before, if it has no metrics."""
        self.done += steps
        self.metrics.update(metrics)
        now = time.monotonic()
        if self._first and not metrics:
            self.clock.tell_before(self.done, now)
        self.clock.reach(self.done + self.ahead, now)
        self._first = False
        if self.outer is not None and self.clock.total:
            self.outer.clock.reach_within(self.done / self.clock.total, now)
        self.screen.advanced(self, now)

    @property
    def complete(self) -> bool:
        """Whether nothing is left of it."""
        return self.done >= self.clock.total

    def line(self, now: float) -> str:
        """Write its end in one line."""
        clock = self.clock
        words = f"{clock.name}  {self.done}/{clock.total}  {clock.seconds(now):.1f} s"
        return f"  {words}  {in_words(self.metrics)}".rstrip()


class Screen:
    """Standard output: messages and progress for the user, all of it kept in a log."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.log = SaidLog()
        self.progress = Progress()
        self.task = "run"
        self.stages: list[ScreenStage] = []  # under way, each within a step of the one before
        self._paused: ScreenStage | None = None
        self._live: Live | None = None
        self._began = self._printed = time.monotonic()

    @property
    def ascii_only(self) -> bool:
        """Whether the screen has no lines and boxes."""
        return self.console.options.ascii_only

    def _cut(self, text: str, width: int) -> str:
        """Cut a line to a width of the screen."""
        width = max(width, 1)
        if len(text) <= width:
            return text
        return text[:width] if self.ascii_only else f"{text[: width - 1]}…"

    def say(self, line: str = "", style: str | None = None) -> None:
        """Show a line, and keep it in the log."""
        self.console.print(line, style=style, markup=False)
        self.log.write(line)

    def show(self, shown: RenderableType) -> None:
        """Show a table or the like, and keep it in the log."""
        self.console.print(shown)
        self.log.write(as_text(shown))

    def expect(self, stages: Sequence[PlannedStage]) -> None:
        """Plan the stages that are to come."""
        self.progress.expect(stages)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[ScreenStage]:
        """Begin a stage, or go on with it; one that runs within another leaves no line."""
        outer = self.stages[-1] if self.stages else None
        now = time.monotonic()
        if outer is None:
            if self._paused is not None and self._paused.clock.name != name:
                self._say_end()
            self._paused = None
            clock = self.progress.begin(name, total, now)
        else:
            clock = StageClock(name, total)
            clock.start(now)
        stage = ScreenStage(self, clock, outer)
        self.stages.append(stage)
        self._go_live()
        try:
            yield stage
        finally:
            self.stages.pop()
        if outer is None:
            self._paused = stage
            if stage.complete:
                self._say_end()

    def rest(self) -> None:
        """End the display: no stage is to come."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._say_end()

    def close(self) -> None:
        """End the display and the log, however the task ended; ignores errors of the disk."""
        for end in (self.rest, self.log.close):
            with suppress(OSError):
                end()

    def advanced(self, stage: ScreenStage, now: float) -> None:
        """Write a line of progress now and then, where there is no terminal."""
        if self.console.is_terminal or now - self._printed < LINE_EVERY_SECONDS:
            return
        self._printed = now
        clock = stage.clock
        words = f"  {clock.name}  {clock.done}/{clock.total}  {clock.seconds(now):.0f} s"
        if (left := clock.left(now)) is not None:
            words += f", about {left:.0f} s left"
        words += f"  {in_words(stage.metrics)}"
        total, share = self.progress.time_left(now), self.progress.share(now)
        if self.progress.planned and total is not None and share is not None:
            words += f"  ({self.task}: {100 * share:.0f} %, {left_in_words(total)})"
        self.say(words)

    def _say_end(self) -> None:
        """Say the end of the stage that has ended, or pauses while another begins."""
        stage, self._paused = self._paused, None
        if stage is None:
            return
        line = stage.line(time.monotonic())
        self.log.write(line)
        if self.console.is_terminal:  # longer than a line are only metrics, which the files hold
            self.console.print(self._cut(line, self.console.width - 1), markup=False)
        else:
            self.console.print(line, markup=False)

    def _go_live(self) -> None:
        if self._live is None and self.console.is_terminal:
            self._live = Live(
                self,
                console=self.console,
                transient=True,
                refresh_per_second=REFRESHES_PER_SECOND,
            )
            self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show a line for the whole run, and one for each stage under way."""
        now = time.monotonic()
        # The main thread goes on meanwhile, so everything is read from copies.
        paused = self._paused
        stages = list(self.stages) or ([] if paused is None else [paused])
        shown = [(stage.clock, dict(stage.metrics)) for stage in stages]
        names = [clock.name for clock, _ in shown]
        width = min(max(map(len, [self.task, *names])), NAME_WIDTH)
        planned = bool(self.progress.planned)
        rows = [_stage_row(clock, metrics, now, brief=planned) for clock, metrics in shown]
        if planned:
            share, left = self.progress.share(now), self.progress.time_left(now)
            percent = "" if share is None else f"{100 * share:.0f} %"
            face = f"{clock_face(now - self._began)}  {left_in_words(left)}"
            rows.insert(0, (self.task, share or 0.0, percent, face))
        counts = max((len(count) for _, _, count, _ in rows), default=0)
        for name, share, count, words in rows:
            filled, ahead = _bar(share, options.ascii_only)
            start = f"  {name[:width]:{width}}  "
            plain = f"{start}{filled}{ahead}  {count:>{counts}}  {words}"
            line = Text(self._cut(plain, options.max_width - 1))
            line.stylize("cyan", len(start), len(start) + len(filled))
            line.stylize("bright_black", len(start) + len(filled), len(start) + BAR_WIDTH)
            yield line


def _stage_row(
    clock: StageClock, metrics: dict[str, float], now: float, *, brief: bool
) -> tuple[str, float, str, str]:
    """Return name, share, count and words of a stage; brief: without the time it has taken."""
    left, seconds = clock.left(now), clock.seconds(now)
    known = left is not None and seconds >= 1
    words = [] if brief and known else [clock_face(seconds)]
    if left is not None and known:
        words.append(f"{roughly(left)} left")
    words.append(in_words(metrics))
    return clock.name, clock.shown(now), f"{clock.done:,}/{clock.total:,}", "  ".join(words)


def _bar(share: float, ascii_only: bool) -> tuple[str, str]:
    """Return the two parts of a bar; it moves by halves of a column."""
    full, half = divmod(int(min(max(share, 0.0), 1.0) * 2 * BAR_WIDTH), 2)
    done, middle, ahead = ("=", "-", "-") if ascii_only else ("━", "╸", "─")
    filled = done * full + middle * half
    return filled, ahead * (BAR_WIDTH - len(filled))
