"""The laws of networks: supernets, their paths, their gates, and what is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.gates import Gate, Gates
from nasrun.testing.law import refusal, require
from nasrun.testing.space_case import IMAGES, SCALES, SpaceCase


def _trained(network: nn.Module, logits: Tensor) -> set[str]:
    """The names of the parameters to which the logits lead back."""
    network.zero_grad()
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    return {name for name, one in network.named_parameters() if one.grad is not None}


def _alike(pair: tuple[Tensor, Tensor], *, exact: bool) -> bool:
    ours, theirs = pair
    return torch.equal(ours, theirs) if exact else torch.allclose(ours, theirs, 1e-4, 1e-5)


def weights_follow_the_generator(case: SpaceCase) -> None:
    """Weights start from torch's default generator: equal for one seed, others for another."""
    (architecture, *_), scale = case.architectures, SCALES[-1]
    networks = []
    for seed in (0, 0, 1):
        with case.streams.default("init", seed):
            networks.append(case.space.network(architecture, case.problem, scale).state_dict())
    require(case.supernet.state_dict(), "the supernet has no weights")
    supernets = [case.initial, *(case.new_supernet(seed).state_dict() for seed in (0, 1))]
    for first, again, other in (networks, supernets):
        require(all(torch.equal(first[n], again[n]) for n in first), "one seed gives two networks")
        require(any(not torch.equal(first[n], other[n]) for n in first), "all seeds are alike")


def logits_are_finite(case: SpaceCase) -> None:
    """Networks give finite logits [B, K] in both modes; not all give all images the same."""
    shape, apart = (IMAGES, case.problem.classes), False
    for run in case.runs:
        final = case.network(run.architecture, "final")
        modes = [final.train(training)(case.images()).detach() for training in (True, False)]
        require(final.auxiliary_logits is None, "logits of an auxiliary head that is not there")
        for pair in (*run.outputs, modes):
            for logits in pair:
                shown = f"the network or path {run.architecture.choices}"
                require(logits.shape == shape, f"{shown} has logits {tuple(logits.shape)}")
                require(logits.isfinite().all(), f"{shown} has logits that are not finite")
        apart |= all(bool((logits[0] != logits[1]).any()) for logits in (*modes, *run.outputs[1]))
    require(apart, "all images have the same logits in every network")


def a_path_is_its_network(case: SpaceCase) -> None:
    """A path computes what the network with the same weights does, where names tell which."""
    for run in case.runs:
        if not run.comparable:
            continue
        shown = f"path {run.architecture.choices}"
        for training, pair in zip((True, False), run.outputs, strict=True):
            require(
                _alike(pair, exact=not run.sliced and not run.absent),
                f"{shown} has other logits than its network, training={training}",
            )
        require(not run.astray, f"{shown} leaves behind other values of {run.astray}")


def only_the_path_is_trained(case: SpaceCase) -> None:
    """A path computes and trains what its network has, and nothing of the options beside it."""
    supernet = case.supernet
    names = {id(module): name for name, module in supernet.named_modules()}
    modules = [(names[id(module)], owners) for module, owners in supernet.option_modules()]
    for run in case.runs:
        shown, choices = f"path {run.architecture.choices}", run.architecture.choices
        if run.comparable:
            own = run.own - run.absent
            require(run.trained == own, f"{shown} does not train {run.trained ^ own}")
        used = {
            name[:end] for name in run.ran | run.trained for end in _dots(name)
        }  # with all that they are in
        for name, owners in modules:
            on = all(choices[decision] == option for decision, option in owners)
            require(on or name not in used, f"{shown} uses {name}, of options {owners}")


def _dots(name: str) -> list[int]:
    """Find the ends of the names of all modules around ``name``, and its own end."""
    return [index for index, letter in enumerate(name) if letter == "."] + [len(name)]


def option_modules_own_their_weights(case: SpaceCase) -> None:
    """A module of options is in the supernet, once, and its options are in the decisions."""
    supernet = case.supernet
    inside = {id(module) for module in supernet.modules()}
    seen: set[int] = set()
    for module, owners in supernet.option_modules():
        require(id(module) in inside, f"the module of {owners} is none of the supernet")
        require(owners, "a module of no option")
        for decision, option in owners:
            require(
                0 <= decision < len(case.space.decisions)
                and 0 <= option < len(case.space.decisions[decision].options),
                f"there is no option {option} of decision {decision}",
            )
        own = {id(parameter) for parameter in module.parameters()}
        require(not own & seen, f"options {owners} share weights with others")
        seen |= own


def canonical_forms_are_one_network(case: SpaceCase) -> None:
    """Forms are forms of themselves and of equivalents, with as many weights that learn."""
    space, streams = case.space, case.streams
    for index, run in enumerate(case.runs):
        architecture = run.architecture
        form = space.check(space.canonical(architecture))
        require(space.canonical(form) == form, f"{form.choices} has another form")
        twin = space.equivalent(architecture, streams.numpy("equivalent", index))
        again = space.equivalent(architecture, streams.numpy("equivalent", index))
        require(twin == again, "one seed gives two equivalents")
        require(
            space.canonical(space.check(twin)) == form,
            f"the equivalent {twin.choices} of {architecture.choices} has another form",
        )
        cost = space.cost(architecture, case.problem)
        for other in {form, twin} - {architecture}:
            network = case.network(other).train()
            trained = _trained(network, network(case.images()))
            learning = sum(p.numel() for n, p in network.named_parameters() if n in trained)
            shown, others = (
                f"{architecture.choices} and {other.choices}",
                space.cost(other, case.problem),
            )
            require(learning == run.learning, f"{shown}: {run.learning}, {learning} weights learn")
            # Idle weights may cost something, as in the published numbers of NAS-Bench-201.
            idle = learning < max(cost.params, others.params)
            require(idle or cost == others, f"{shown} cost {cost} and {others}")


def gates_are_those_of_the_claims(case: SpaceCase) -> None:
    """Mixtures run where gate_kinds has mix, with learned weights; else they are refused."""
    space, images = case.space, case.images()
    supernet = case.supernet.train()
    choices = case.architectures[0].choices
    if "mix" not in space.gate_kinds:
        halves: Gates = [{choice: 0.5} for choice in choices]
        require(refusal(lambda: supernet(images, halves)), "mixtures are not refused")
        if not space.binary:
            return
    opened = supernet(images, space.whole)
    require(opened.isfinite().all(), "the whole supernet gives logits that are not finite")
    left = {n for n, p in supernet.named_parameters() if p.requires_grad}
    left -= _trained(supernet, opened)
    require(not left, f"the whole supernet does not train {left}")
    if "mix" not in space.gate_kinds:
        return
    weights = [
        {option: torch.rand((), requires_grad=True) for option in range(len(decision.options))}
        for decision in space.decisions
    ]
    supernet(images, weights).square().sum().backward()
    for decision, of_decision in zip(space.decisions, weights, strict=True):
        idle = [option for option, weight in of_decision.items() if weight.grad is None]
        require(len(idle) <= 1, f"{decision.name}: no gradient of options {idle}")  # one: none, off
        gradients = [weight.grad for weight in of_decision.values() if weight.grad is not None]
        require(all(one.isfinite() for one in gradients), f"{decision.name}: not finite")


def mixtures_are_sums(case: SpaceCase) -> None:
    """An option alone with weight 1 is the path; images may have weights of their own."""
    space, images = case.space, case.images()
    if "mix" not in space.gate_kinds:
        return
    supernet = case.supernet.eval()
    with torch.no_grad():
        for architecture in case.architectures:
            path = architecture.choices
            expected = supernet(images, path)
            each = torch.ones(IMAGES, 1, 1, 1)
            for weight in (1.0, each):
                gates: Gates = [{choice: weight} for choice in path]
                found = supernet(images, gates)
                require(torch.equal(found, expected), f"{path} with weight 1 is another path")
        if space.binary:  # what is on for some images alone leaves zeros, which norms shift
            return
        paths = [architecture.choices for architecture in case.architectures]
        one, other = paths[0], next(path for path in paths if path != paths[0])
        first = (torch.arange(IMAGES) == 0).float().view(-1, 1, 1, 1)
        mixed: list[Gate] = [
            a if a == b else {a: first, b: 1 - first} for a, b in zip(one, other, strict=True)
        ]
        found = supernet(images, mixed)
        for row, path in ((0, one), (1, other)):
            require(
                torch.allclose(found[row], supernet(images, path)[row], 1e-4, 1e-5),
                f"image {row}, with {path} alone open for it, has logits of another path",
            )


def auxiliary_heads_are_extra(case: SpaceCase) -> None:
    """An auxiliary head gives logits [B, K] in training alone; or it is refused for both."""
    space, (architecture, *_) = case.space, case.architectures
    choices = architecture.choices
    try:
        with case.streams.default("network"):
            supernet = space.supernet(case.problem, auxiliary=True)
    except UserError as error:
        advice = "auxiliary_weight=0" in str(error)
        require(advice, f"{str(error)!r} does not tell to set auxiliary_weight=0")
        told = refusal(lambda: space.network(architecture, case.problem, "final", auxiliary=True))
        require(told, "the supernet has no auxiliary head, but the network has")
        return
    with case.streams.default("network"):
        network = space.network(architecture, case.problem, "final", auxiliary=True)
    plain = case.network(architecture, "final")
    more = network.state_dict().keys() - plain.state_dict().keys()
    require(more, "the auxiliary head has no weights")
    for module, gates in ((supernet, (choices,)), (network, ())):
        module.train()(case.images(), *gates)
        logits = module.auxiliary_logits
        shape = (IMAGES, case.problem.classes)
        require(logits is not None and logits.shape == shape, "no auxiliary logits in training")
        module.eval()(case.images(), *gates)
        require(module.auxiliary_logits is None, "auxiliary logits in evaluation")


NETWORK_LAWS = (
    weights_follow_the_generator,
    logits_are_finite,
    a_path_is_its_network,
    only_the_path_is_trained,
    option_modules_own_their_weights,
    canonical_forms_are_one_network,
    gates_are_those_of_the_claims,
    mixtures_are_sums,
    auxiliary_heads_are_extra,
)
"""The laws of a space's networks, in the order in which they are checked."""
