"""The beginning of a report: what was asked, and what came out."""

from __future__ import annotations

from collections.abc import Mapping

from nasrun.errors import plural
from nasrun.report.document import Block, Facts, Figures, Section, Text
from nasrun.report.sections.view import RunView
from nasrun.report.units import UNITS
from nasrun.report.words import (
    accuracy,
    class_words,
    duration,
    estimate,
    millions,
    number,
    percent,
)
from nasrun.run.commands import command

GATE_LEARNERS = tuple(
    f"nasrun.search_algo.{name}." for name in ("gates", "dso", "enas", "bayesnas")
)
"""Modules of the algorithms that set the gates of training themselves, instead of a sampler."""

SPENT = {
    "evaluations": "architectures scored",
    "training_steps": "training steps",
    "images": "images seen",
    "device_seconds": "seconds on the device",
}

SHARES = ("accuracy", "calibration_error", "confidence")
"""Ends of the names of numbers that are told in per cent."""

NOT_SHOWN = ("status", "task", "architecture", "spent", "seconds", "error", "kind", "overrides")


def asked(view: RunView) -> str:
    """Say in one sentence what the run was to find out."""
    space, data = class_words(view.setting("search_space")), class_words(view.setting("dataset"))
    seed = f"seed {view.run.seed}" if view.run.seed is not None else "an unknown seed"
    where = f"{space or 'a search space'}, for {data or 'a data set'}"
    task = view.run.task
    if task == "search":
        algo = class_words(view.setting("search_algo")) or "an unknown algorithm"
        return (
            f"Find the best network of {where}{within(view)}, by {algo}; candidates are scored by "
            f"{scored_by(view)}; {seed}."
        )
    if task == "supernet":
        return f"Train a supernet of {where}, {trained(view)}; {seed}."
    if task == "retrain":
        epochs = epochs_of(view.setting("retrain", "trainer", "epochs"))
        return f"Train one architecture of {where}, from scratch for {epochs}; {seed}."
    if task == "rank":
        truth = source_words(view.setting("rank", "truth"))
        count = view.value("architectures")
        sample = "architectures" if count is None else plural(int(count), "architecture")
        return (
            f"How truly does a supernet of {where}, {trained(view)}, rank {sample}? The truth "
            f"comes from {truth}; {seed}."
        )
    if task == "compare":
        algorithms = view.setting("compare", "algorithms")
        names = ", ".join(algorithms) if isinstance(algorithms, Mapping) else "search algorithms"
        return (
            f"Which of {names} finds the best of {where}{within(view)}, in "
            f"{view.setting('compare', 'evaluations')} evaluations, over "
            f"{view.setting('compare', 'seeds')} seeds?"
        )
    return f"nasrun {task or '(unknown task)'}: {where}; {seed}."


def trained(view: RunView) -> str:
    """Say how the supernet is trained."""
    epochs = epochs_of(view.setting("trainer", "epochs"))
    length = f"trained for {epochs}" if view.setting("from") is None else "loaded"
    target = str(view.setting("search_algo", "_target_"))
    if view.run.task == "search" and target.startswith(GATE_LEARNERS):
        return f"{length} while its gates are learned"
    sampler = class_words(view.setting("sampler"))
    return f"{length} with {sampler} sampling" if sampler and length != "loaded" else length


def scored_by(view: RunView) -> str:
    """Say where scores come from."""
    name = class_words(view.setting("evaluator"))
    if name in ("supernet evaluator", "kl evaluator"):
        kind = "divergence from" if name.startswith("kl") else "the shared weights of"
        return f"{kind} a supernet {trained(view)}"
    return source_words(view.setting("evaluator"))


def source_words(node: object) -> str:
    """Say where the scores of an evaluator without a supernet come from."""
    name = class_words(node)
    return {
        "table evaluator": "a table",
        "size evaluator": "their size",
        "standalone evaluator": "training each on its own",
    }.get(name, name or "an unknown source")


def epochs_of(epochs: object) -> str:
    """Write a number of epochs."""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


def within(view: RunView) -> str:
    """Say the bounds of the budget; empty if there are none."""
    parts = []
    for name, (words, unit, one) in UNITS.items():
        bounds = view.setting("budget", name)
        if not isinstance(bounds, Mapping):
            continue
        low, high = number(bounds.get("min")), number(bounds.get("max"))
        if high is not None:
            parts.append(f"at most {high / one:,.6g} {unit} {words}")
        if low is not None:
            parts.append(f"at least {low / one:,.6g} {unit} {words}")
    return f", with {' and '.join(parts)}" if parts else ""


def came_out(view: RunView) -> Section:
    """Show the numbers that answer the question, or why there are none."""
    blocks: list[Block] = []
    status = view.run.status
    if view.going:
        blocks.append(Text("The run is still going: all numbers are preliminary.", "warning"))
    elif status == "failed":
        error = str(view.result.get("error") or "it has left no message")
        blocks.append(Text(f"The run has failed: {error}", "error"))
    elif status != "done":
        blocks.append(
            Text(
                "The run has not ended: it was stopped, or it has failed. It can go on: "
                f"{command('resume', view.place)}",
                "warning",
            )
        )
    if rows := figures(view):
        blocks.append(Figures(rows))
    if facts := costs(view):
        blocks.append(Facts(facts))
    return Section("result", "What came out", blocks)


def figures(view: RunView) -> list[tuple[str, str, str]]:
    """Return the few large numbers: value, name, remark."""
    found: list[tuple[str, str, str]] = []
    if (test := view.value("test_accuracy")) is not None:
        count = view.test_images
        remark = f"95 % interval over {count:,.0f} test images" if count else "on the test images"
        found.append((accuracy(test, count), "test accuracy", remark))
    elif (true := view.value("true_accuracy")) is not None:
        found.append((percent(true), "true accuracy", "looked up in a table"))
    if view.run.task == "rank":
        found += ranked(view)
    elif view.run.task == "compare":
        found += compared(view)
    for name, words in (("params", "parameters"), ("macs", "multiply-adds")):
        value = view.value(name)
        if value is not None:
            found.append((millions(value), words, ""))
    seconds = view.value("seconds")
    if seconds is not None:
        found.append((duration(seconds), "time", view.run.device[:80]))
    return found


def ranked(view: RunView) -> list[tuple[str, str, str]]:
    """Return the large numbers of a ranking."""
    measures = view.run.measures
    if "kendall" not in measures:
        return []
    rows = [(estimate(measures["kendall"]), "Kendall's τ-b with the truth", "")]
    alone = {name: measures.get(f"{name}_alone") for name in ("params", "macs")}
    sizes = {name: found for name, found in alone.items() if found is not None}
    if sizes:
        best = max(sizes, key=lambda name: sizes[name].value)
        words = {"params": "parameters", "macs": "multiply-adds"}[best]
        rows.append((estimate(sizes[best]), f"τ-b of {words} alone", "the baseline of size"))
    return rows


def compared(view: RunView) -> list[tuple[str, str, str]]:
    """Return the large numbers of a comparison."""
    rows = view.run.comparison
    if not rows:
        return []
    best = min(rows, key=lambda row: row.regret.value)
    value = f"{100 * best.regret.value:.3f}"
    remark = f"points of regret; {100 * best.regret.low:.3f} to {100 * best.regret.high:.3f}"
    return [(value, f"least mean regret: {best.algorithm}", remark)]


def costs(view: RunView) -> list[tuple[str, str]]:
    """Return the other numbers of the result, in words."""
    found: list[tuple[str, str]] = []
    shown = ["params", "macs", "bitops", "latency_ms", "test_accuracy"]
    for name, words in (
        ("validation_accuracy", "validation accuracy of the retrained network"),
        ("shortlist_accuracy", "validation accuracy after the brief training of the shortlist"),
        ("score", "score in the search"),
        ("test_balanced_accuracy", "balanced test accuracy (mean over classes)"),
        ("validation_balanced_accuracy", "balanced validation accuracy"),
        ("parameter_free", "operations without parameters"),
    ):
        value = view.value(name)
        if value is not None:
            found.append((words, percent(value)))
            shown.append(name)
    if (bits := view.value("bitops")) is not None:
        found.append(("bit-operations", f"{bits / 1e9:.3f} G"))
    if (latency := view.value("latency_ms")) is not None:
        found.append(("latency", f"{latency:.3f} ms"))
    epochs = view.result.get("epochs")
    if isinstance(epochs, Mapping):
        used, trained_for = number(epochs.get("used")), number(epochs.get("trained"))
        if used is not None and trained_for is not None:
            found.append(("epoch whose weights are used", f"{used:.0f} of {trained_for:.0f}"))
    spent = view.result.get("spent")
    if isinstance(spent, Mapping):
        for name, words in SPENT.items():
            count = number(spent.get(name))
            if count:  # a test scores and trains nothing
                found.append((words, f"{count:,.0f}"))
    elif view.searched and view.run.task == "search":
        found.append(("architectures scored in the search", f"{len(view.searched):,}"))
    if view.run.task not in ("search", "retrain", "rank", "compare"):
        for name, value in view.result.items():
            plain = number(value)
            if plain is not None and name not in (*NOT_SHOWN, *shown):
                words = percent(plain) if name.endswith(SHARES) else f"{plain:,.6g}"
                found.append((name.replace("_", " "), words))
    return found
