"""The laws of search spaces as values: architectures, their costs, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from nasrun.errors import UserError
from nasrun.search_space.gates import BINARY
from nasrun.search_space.graph import Graph
from nasrun.testing.law import refusal, require
from nasrun.testing.space_case import SCALES, SpaceCase, count_cost
from nasrun.values import Architecture, MapSize

LISTED = 20_000
"""Architectures of a space that is listed whole, at most."""

SAMPLED = 2_000
"""Random architectures in which every option must be found, at most."""

COMPARED = 100
"""Random architectures whose costs are held against the bounds."""


def decisions_are_well_formed(case: SpaceCase) -> None:
    """Decisions have names of their own, and options with names of their own."""
    space = case.space
    names = [decision.name for decision in space.decisions]
    require(space.name, "the space has no name")
    require(names, "there are no decisions")
    require(len(set(names)) == len(names), "two decisions have one name")
    for decision in space.decisions:
        options = decision.options
        require(options and len(set(options)) == len(options), f"{decision.name}: {options}")
        if space.binary:
            require(options == BINARY, f"binary, but {decision.name} has the options {options}")
    require("path" in space.gate_kinds, "gate_kinds lacks 'path'")


def samples_follow_the_generator(case: SpaceCase) -> None:
    """A generator's seed decides which architecture is sampled, and seeds differ."""
    space, streams = case.space, case.streams
    found = [space.sample(streams.numpy("sample", seed)) for seed in range(20)]
    again = [space.sample(streams.numpy("sample", seed)) for seed in range(20)]
    require(found == again, "one seed gives two architectures")
    require(len(set(found)) > 1 or space.size == 1, "all seeds give one architecture")
    for architecture in found:
        require(space.check(architecture) == architecture, f"{architecture} is changed by check")


def every_option_is_sampled(case: SpaceCase) -> None:
    """Sampling reaches every option that architectures of the space may have."""
    space, rng = case.space, case.streams.numpy("options")
    left = {
        (index, option)
        for index, decision in enumerate(space.decisions)
        for option in range(len(decision.options))
    }
    sampled: list[Architecture] = []
    while left and len(sampled) < SAMPLED:
        sampled.append(space.sample(rng))
        left -= set(enumerate(sampled[-1].choices))
    for index, option in sorted(left):
        decision = space.decisions[index]
        for start in sampled[:20]:
            choices = (*start.choices[:index], option, *start.choices[index + 1 :])
            changed = space.repair(Architecture(space.name, choices), rng)
            require(
                changed.choices[index] != option,
                f"{decision.name}={decision.options[option]} is in none of {SAMPLED} samples",
            )


def architectures_are_written_and_read(case: SpaceCase) -> None:
    """Architectures that are written are read back by parse, and from JSON by read."""
    space = case.space
    for architecture in case.spread(20):
        text = space.write(architecture)
        stored = json.loads(json.dumps(architecture.to_json()))
        require("\n" not in text, f"{text!r} is more than one line")
        for found in (
            space.parse(text),
            space.parse(f" {text}\n"),
            space.read(text),
            space.read(stored),
        ):
            require(found == architecture, f"{text} is read as {found.choices}")


def strangers_are_refused(case: SpaceCase) -> None:
    """Choices and words of no architecture are refused with a UserError of one line."""
    space, (architecture, *_) = case.space, case.architectures
    name, choices = space.name, list(architecture.choices)
    count = len(space.decisions[0].options)
    strangers = [
        Architecture(f"{name}/other", tuple(choices)),
        Architecture(name, tuple(choices[1:])),
        Architecture(name, (*choices, 0)),
        Architecture(name, (count, *choices[1:])),
        Architecture(name, (-1, *choices[1:])),
    ]
    values = [
        *(stranger.to_json() for stranger in strangers),
        {"space": name, "choices": [True] * len(choices)},
        {"space": name, "choices": "0"},
        [1, 2, 3],
    ]
    texts = ["", "9" * 1000, "x" * len(choices), f"{space.write(architecture)} x"]
    calls: list[Callable[[], object]] = [partial(space.check, one) for one in strangers]
    calls += [partial(space.read, value) for value in (*values, *texts)]
    calls += [partial(space.parse, text) for text in texts]
    for call, shown in zip(calls, (*strangers, *values, *texts, *texts), strict=True):
        told = refusal(call)
        require(told is not None, f"{shown!r} is accepted")
        require("\n" not in str(told), f"the refusal of {shown!r} is more than one line")


def repairs_are_architectures(case: SpaceCase) -> None:
    """Repair leaves architectures as they are, and makes architectures of other choices."""
    space, rng = case.space, case.streams.numpy("repair")
    for architecture in case.spread(20):
        require(space.check(architecture) == architecture, f"repair gave {architecture.choices}")
        repaired = space.repair(architecture, rng)
        require(repaired == architecture, f"{architecture.choices} became {repaired.choices}")


def groups_partition_the_decisions(case: SpaceCase) -> None:
    """Each decision is in one group; variants of an architecture are architectures, itself too."""
    space, (start, *_) = case.space, case.architectures
    indices = sorted(index for group in space.groups for index in group)
    require(indices == list(range(len(space.decisions))), f"the groups hold {indices}")
    for group in (space.groups[0], space.groups[-1]):
        variants = list(space.variants(start, group))
        require(start in variants, f"{start.choices} is no variant of itself")
        require(len(set(variants)) == len(variants), "a variant comes twice")
        for variant in variants:
            space.check(variant)
            changed = {
                index
                for index, pair in enumerate(zip(start.choices, variant.choices, strict=True))
                if pair[0] != pair[1]
            }
            require(changed <= set(group), f"variants of {group} change {changed}")


def all_architectures_are_listed(case: SpaceCase) -> None:
    """Every gives each architecture once, as many as size says."""
    space = case.space
    found = list(islice(space.every(), LISTED))
    require(len(set(found)) == len(found), "an architecture is listed twice")
    require(len(found) == min(space.size, LISTED), f"{len(found)} are listed of {space.size}")
    for architecture in found[:: max(len(found) // 500, 1)]:
        space.check(architecture)


def costs_are_counted(case: SpaceCase) -> None:
    """The cost is that of the stand-alone network, counted in the built one, at both scales."""
    for architecture in case.architectures:
        for scale in SCALES:
            cost = case.space.cost(architecture, case.problem, scale)
            counted = count_cost(case.network(architecture, scale), case.problem)
            require(
                (cost.params, cost.macs) == (counted.params, counted.macs),
                f"{cost} of {architecture.choices} at scale {scale}, counted {counted}",
            )


def rectangles_are_images(case: SpaceCase) -> None:
    """Images may be wider than high: costs are counted, and supernet and network compute."""
    space, architecture = case.space, case.architectures[0]
    side = case.problem.size.height
    problem = replace(case.problem, size=MapSize(side, side + side // 2 + 1))
    with case.streams.default("rectangle"):
        network, supernet = space.network(architecture, problem, "search"), space.supernet(problem)
    cost, counted = space.cost(architecture, problem, "search"), count_cost(network, problem)
    require(
        (cost.params, cost.macs) == (counted.params, counted.macs),
        f"{cost} of {architecture.choices} on {problem.size.words} pixels, counted {counted}",
    )
    images = case.images(2, problem.size)
    for logits in (network(images), supernet(images, architecture.choices)):
        require(logits.shape == (2, problem.classes), f"logits {tuple(logits.shape)}")
        require(logits.isfinite().all(), f"images of {problem.size.words}: {logits}")


def no_cost_exceeds_the_bound(case: SpaceCase) -> None:
    """No architecture costs more than cost_bound, at either scale."""
    for scale in SCALES:
        bound = case.space.cost_bound(case.problem, scale)
        for architecture in case.spread(COMPARED):
            cost = case.space.cost(architecture, case.problem, scale)
            for size in case.sizes:
                require(
                    getattr(cost, size) <= getattr(bound, size),
                    f"{size} of {architecture.choices} at scale {scale}: {cost}, bound {bound}",
                )


def costs_add_up(case: SpaceCase) -> None:
    """If the space is additive, a group's choices cost the same whatever the others are."""
    space, groups = case.space, case.space.additive
    if groups is None:
        return
    one, *others = case.architectures
    for scale in SCALES:
        for size in case.sizes:
            measure = space.sizer(size, case.problem, scale)
            for other in others:
                total = measure(one)
                for group in groups:
                    choices = [
                        (other if index in group else one).choices[index]
                        for index in range(len(one.choices))
                    ]
                    total += measure(Architecture(space.name, tuple(choices))) - measure(one)
                require(
                    total == measure(other),
                    f"{size} of {other.choices} is {measure(other)}, its terms add up to {total}",
                )


def extremes_bound_the_costs(case: SpaceCase) -> None:
    """No random architecture is smaller or larger than the extremes."""
    space = case.space
    for size in case.sizes:
        measure = space.sizer(size, case.problem)
        low, high = space.extremes(measure, case.streams)
        for architecture in (*case.spread(COMPARED), space.check(low), space.check(high)):
            require(
                measure(low) <= measure(architecture) <= measure(high),
                f"{architecture.choices} has {measure(architecture)} {size}, the extremes "
                f"{measure(low)} and {measure(high)}",
            )


def words_and_graphs_fit(case: SpaceCase) -> None:
    """Descriptions are lines, graphs join their own nodes, gates of a path favour the path."""
    space = case.space
    for architecture in case.spread(5):
        lines = space.describe(architecture)
        require(lines and not any("\n" in line for line in lines), f"described as {lines}")
        require(0 <= space.free_share(architecture) <= 1, "free_share is no share")
        for name, graph in space.graphs(architecture, case.problem).items():
            ends = {end for edge in graph.edges for end in edge[:2]}
            require(ends <= set(range(len(graph.nodes))), f"{name} has edges to {ends}")
            require(_is_acyclic(graph), f"{name} has a circle")
        blocks = space.block_costs(architecture, case.problem).values()
        cost = space.cost(architecture, case.problem)
        require(sum(block.macs for block in blocks) <= cost.macs, "blocks cost more than all")
        weights = [
            [float(option == choice) for option in range(len(decision.options))]
            for decision, choice in zip(space.decisions, architecture.choices, strict=True)
        ]
        favoured = space.strongest(weights)
        require(favoured == architecture, f"{favoured} is favoured over {architecture}")


def _is_acyclic(graph: Graph) -> bool:
    sorter = TopologicalSorter[int]()
    for source, target, _ in graph.edges:
        sorter.add(target, source)
    try:
        sorter.prepare()
    except CycleError:
        return False
    return True


def small_images_are_refused(case: SpaceCase) -> None:
    """Images are large enough for cost, network and supernet alike, or refused by all of them."""
    space, (architecture, *_) = case.space, case.architectures
    told: dict[str, str] = {}
    for size in range(1, case.problem.size.short + 1):
        problem = replace(case.problem, size=MapSize.square(size))
        refusals: dict[str, str] = {}
        built: dict[str, Any] = {}
        builds: dict[str, Callable[[], Any]] = {
            "cost": partial(space.cost, architecture, problem),
            "cost_bound": partial(space.cost_bound, problem),
            "network": partial(space.network, architecture, problem, "search"),
            "supernet": partial(space.supernet, problem),
        }
        for name, build in builds.items():
            try:
                built[name] = build()
            except UserError as error:
                refusals[name] = str(error)
        if not refusals:
            images = case.images(2, problem.size)
            for logits in (
                built["network"](images),
                built["supernet"](images, architecture.choices),
            ):
                require(logits.isfinite().all(), f"the smallest images, {size}×{size}: {logits}")
            for message in told.values():
                words = f"{size - 1}×{size - 1} pixels are too small", f"at least {size}×{size}"
                lacking = [word for word in words if word not in message]
                require(not lacking, f"{message!r} does not say {lacking}")
            return
        refusing = " and ".join(refusals)
        require(not built, f"images of {size}×{size} pixels are refused by {refusing} alone")
        told = refusals
    require(False, f"all images up to {case.problem.size.words} pixels are refused")


VALUE_LAWS = (
    decisions_are_well_formed,
    samples_follow_the_generator,
    every_option_is_sampled,
    architectures_are_written_and_read,
    strangers_are_refused,
    repairs_are_architectures,
    groups_partition_the_decisions,
    all_architectures_are_listed,
    costs_are_counted,
    rectangles_are_images,
    no_cost_exceeds_the_bound,
    costs_add_up,
    extremes_bound_the_costs,
    words_and_graphs_fit,
    small_images_are_refused,
)
"""The laws of a space as a set of architectures, in the order in which they are checked."""
