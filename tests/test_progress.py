"""Time left: known answers, and a world of constant rates in which every estimate is checked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasrun.run.progress import MIN_SECONDS, Progress, StageClock
from nasrun.run.stages import PlannedStage


def steady(clock: StageClock, now: float, steps: int, seconds: float) -> float:
    """Take so many steps, each as long; returns the time after them."""
    for done in range(clock.done + 1, clock.done + steps + 1):
        now += seconds
        clock.reach(done, now)
    return now


def test_the_rest_of_a_stage_and_of_one_that_is_guessed_by_its_work() -> None:
    progress = Progress()
    progress.expect(
        [
            PlannedStage("supernet/round0", 100, "steps", 6.0),
            PlannedStage("retrain", 10, "steps", 3),
        ]
    )
    clock = progress.begin("supernet/round0", 100, 0.0)
    clock.tell_before(0, 0.0)
    now = steady(clock, 0.0, 25, 2.0)
    left = progress.time_left(now)
    assert left is not None and left.about  # a step of retraining never ran
    assert left.seconds == pytest.approx(75 * 2 + 10 * 1)  # half the work, half the time
    assert progress.share(now) == pytest.approx(50 / 210)
    assert progress.time_left(now + 1).seconds == pytest.approx(left.seconds - 1)  # type: ignore[union-attr]


def test_a_round_is_measured_by_the_round_before_and_the_rest_is_not_about() -> None:
    progress = Progress()
    names = ["supernet/round0", "supernet/round1"]
    progress.expect([PlannedStage(name, 10, "steps") for name in names])
    now = steady(progress.begin(names[0], 10, 0.0), 0.0, 10, 1.0)
    left = progress.time_left(now)
    assert left is not None and not left.about
    assert left.seconds == pytest.approx(10)


def test_steps_of_an_earlier_process_took_no_time_here() -> None:
    progress = Progress()
    progress.expect([PlannedStage("a", 5, "steps"), PlannedStage("retrain", 100, "steps")])
    clock = progress.begin("retrain", 100, 0.0)
    clock.tell_before(60, 1.0)
    now = steady(clock, 1.0, 10, 1.0)
    assert clock.rate == pytest.approx(1.0)
    assert clock.left(now) == pytest.approx(30)
    assert progress.share(now) == pytest.approx(0.7)


def test_a_stage_within_moves_the_one_around_it() -> None:
    clock = StageClock("shortlist", 4)
    clock.start(0.0)
    clock.tell_before(0, 0.0)
    clock.reach(1, 10.0)
    clock.reach_within(0.5, 15.0)
    assert (clock.position, clock.left(15.0)) == (1.5, pytest.approx(25))
    clock.reach(2, 20.0)
    assert (clock.position, clock.left(20.0)) == (2, pytest.approx(20))


def test_work_between_two_parts_of_a_stage_belongs_to_it() -> None:
    """So looks after each epoch are not forgotten in the time left."""
    progress = Progress()
    progress.expect([PlannedStage("retrain", 4, "steps")])
    clock = progress.begin("retrain", 4, 0.0)
    clock.tell_before(0, 0.0)
    clock.reach(1, 1.0)
    again = progress.begin("retrain", 4, 5.0)  # four seconds of looking
    again.tell_before(1, 5.0)  # as every part says
    again.reach(2, 6.0)
    assert again is clock
    assert (clock.rate, clock.left(6.0)) == (3.0, 6.0)


def test_nothing_is_told_too_early_and_an_ended_stage_takes_nothing() -> None:
    progress = Progress()
    progress.expect([PlannedStage("retrain", 100, "steps")])
    assert progress.time_left(0.0) is progress.share(0.0) is None
    clock = progress.begin("retrain", 100, 0.0)
    assert progress.time_left(9.0) is None  # no step yet
    clock.reach(1, MIN_SECONDS / 2)
    assert progress.time_left(MIN_SECONDS / 2) is None
    now = steady(clock, MIN_SECONDS / 2, 9, 1.0)
    assert progress.time_left(now) is not None
    progress.end("retrain")
    assert progress.time_left(now).seconds == 0  # type: ignore[union-attr]


RATES = st.floats(0.01, 10)


@settings(max_examples=60)
@given(rounds=st.integers(2, 4), rates=st.tuples(RATES, RATES), pause=st.integers(1, 9))
def test_where_rates_are_constant_the_estimate_is_the_truth_once_all_kinds_were_seen(
    rounds: int, rates: tuple[float, float], pause: int
) -> None:
    plan = [
        PlannedStage(f"{kind}/round{index}", 10, unit)
        for index in range(rounds)
        for kind, unit in (("supernet", "steps"), ("score", "architectures"))
    ]
    progress = Progress()
    progress.expect(plan)
    speeds = dict(zip(("supernet", "score"), rates, strict=True))
    whole = sum(10 * speeds[stage.name.partition("/")[0]] for stage in plan)
    now, shares = 0.0, []
    for index, stage in enumerate(plan):
        seconds = speeds[stage.name.partition("/")[0]]
        now = steady(progress.begin(stage.name, 10, now), now, pause, seconds)
        left = progress.time_left(now)
        if left is not None and index:
            assert left.seconds == pytest.approx(whole - now)
            assert not left.about
            shares.append(progress.share(now))
        now = steady(progress.begin(stage.name, 10, now), now, 10 - pause, seconds)
    assert shares == sorted(shares)  # type: ignore[type-var]
