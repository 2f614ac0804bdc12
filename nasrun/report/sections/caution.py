"""The limits of a run's numbers: what cannot be concluded from them, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from nasrun.metrics.bootstrap import warn_if_too_small
from nasrun.metrics.power import LEVEL
from nasrun.metrics.share import COLLAPSE_SHARE, wilson
from nasrun.report.document import Points, Section
from nasrun.report.sections.comparison import control_of, reference
from nasrun.report.sections.view import RunView
from nasrun.report.words import estimate, percent
from nasrun.run.layout import REGRET_BY_TAU


def caution(view: RunView) -> Section:
    """Say what the numbers do not show; every sentence has a rule below."""
    items: list[str] = []
    if view.run.task in ("search", "retrain"):
        items += found_network(view)
    if view.run.task == "search":
        items += found_by_search(view)
    if view.run.task == "rank":
        items += ranked(view)
    if view.run.task == "compare":
        items += compared(view)
    items += code_and_device(view)
    return Section("caution", "What cannot be concluded", [Points(items)] if items else [])


def found_network(view: RunView) -> Iterator[str]:
    """One training of one network."""
    seeds = "It is one run from one seed (n = 1)"
    if view.run.task == "search":
        yield (
            f"{seeds}: how much another seed would change the winner and its accuracy is not "
            "known. Several seeds tell: -m seed=0,1,2,3,4."
        )
    else:
        yield f"{seeds}: another seed gives another accuracy; by how much is not known from it."
    test, count = view.value("test_accuracy"), view.test_images
    if test is not None and count:
        found = wilson(test, int(count))
        yield (
            f"The test accuracy comes from {count:,.0f} images, so its interval is "
            f"{100 * (found.high - found.low):.2f} points wide; it is of this training, not of the "
            "architecture trained again."
        )
    validation = view.value("validation_accuracy")
    if validation is not None and view.run.task == "search":
        yield (
            f"The validation accuracy ({percent(validation)}) is optimistic: the same images chose "
            "the architecture. The test images were read once, at the end."
        )
    notes = view.data.get("notes")
    if isinstance(notes, list) and any("uneven" in str(note) for note in notes):
        yield "The classes are uneven: look at the balanced accuracy beside the accuracy."


def found_by_search(view: RunView) -> Iterator[str]:
    """Scores chose the winner; a control is missing."""
    score, trials = view.value("score"), view.searched
    supernet = any(stage.startswith("supernet") for stage in view.curves)
    if score is not None and supernet:
        chosen = f", and the best of {len(trials):,}" if len(trials) > 1 else ""
        selected = ", and too high by selection" if len(trials) > 1 else ""
        yield (
            f"The score ({percent(score)}) is that of shared weights on validation images{chosen}: "
            f"it is no accuracy of the network{selected}."
        )
    target = str(view.setting("search_algo", "_target_"))
    if target.endswith(".RandomSearch"):
        yield "This is random search: the control for other algorithms, not a method by itself."
    else:
        yield (
            "That the algorithm does better than chance is not shown here: that takes "
            "search_algo=random with the same settings, over the same seeds."
        )
    close = within_noise(view)
    if close is not None:
        count, of, points = close
        yield (
            f"{count:,} of {of:,} architectures score within {points:.1f} points of the best, the "
            "half width of its 95 % interval: which of them is best, these scores do not show."
        )
    free = view.value("parameter_free")
    if free is not None and free > COLLAPSE_SHARE:
        yield (
            f"{percent(free, 0)} of the winner's operations have no parameters: weight sharing and "
            "learned gates tend to that, so the search may have collapsed."
        )
    if view.scales_differ:
        yield "Sizes of trials are those of the search, not of the network that was retrained."


def within_noise(view: RunView) -> tuple[int, int, float] | None:
    """Count the trials near the best: (how many, of how many, half width in points)."""
    images, trials = view.scored_images, view.searched
    if images is None or len(trials) < 2 or len({trial.group for trial in trials}) > 1:
        return None
    best = max(trial.score for trial in trials)
    if not 0 <= best <= 1:
        return None
    found = wilson(best, int(images))
    half = (found.high - found.low) / 2
    near = sum(trial.score >= best - half for trial in trials)
    return (near, len(trials), 100 * half) if near > 1 else None


def ranked(view: RunView) -> Iterator[str]:
    """A ranking by one supernet, beside size."""
    yield (
        "It is one supernet from one seed: the intervals are over architectures, and say nothing "
        "of another training."
    )
    found = view.run.measures
    tau = found.get("kendall")
    if tau is None:
        return
    if math.isfinite(tau.low) and tau.low <= 0:
        yield f"That the scores rank better than chance is not shown: τ-b {estimate(tau)}."
    for name, words in (("macs", "multiply-adds"), ("params", "parameters")):
        alone, above = found.get(f"{name}_alone"), found.get(f"above_{name}")
        if alone is not None and above is not None and above.low <= 0:
            yield (
                f"That the scores rank better than {words} alone is not shown: these have τ-b "
                f"{estimate(alone)}, and the difference is {estimate(above)}."
            )
    count = view.value("architectures")
    if count is not None and (warning := warn_if_too_small(int(count), tau)):
        yield warning[0].upper() + warning[1:] + "."
    ceiling = found.get("ceiling_kendall")
    if ceiling is not None and math.isfinite(ceiling.value):
        yield (
            "The truth has noise of its own: one training ranks like another with a τ-b of "
            f"{estimate(ceiling)}."
        )


def compared(view: RunView) -> Iterator[str]:
    """Algorithms that are not told apart from the control."""
    rows = view.run.comparison
    same = [row.algorithm for row in rows if row.p is not None and row.p >= LEVEL]
    if same:
        yield (
            f"Not shown to differ from {control_of(view) or 'the control'} (p ≥ {LEVEL:g}): "
            f"{', '.join(same)}."
        )
    if rows or view.run.has(REGRET_BY_TAU):
        yield (
            "The scores are known beforehand, so nothing is said of a search whose supernet must "
            "be trained, nor of other spaces."
        )
    tested = sum(row.p is not None for row in rows)
    if tested > 1:
        yield f"The {tested} algorithms are tested against the control, not against each other."
    if rows:
        if reference(view) != "the best there is":
            yield "Regret is measured to the best that any search found: the true one is larger."
        fewest = min(row.seeds for row in rows)
        if fewest < max(row.seeds for row in rows):
            yield f"Some algorithms have fewer seeds ({fewest:,}) than others."


def code_and_device(view: RunView) -> Iterator[str]:
    """Code that nobody can get back."""
    git = view.run.record.get("git")
    if isinstance(git, Mapping) and git.get("clean") is False:
        yield "The code had changes that are in no commit: the commit alone does not repeat it."
