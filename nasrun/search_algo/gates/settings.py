"""The settings of learned gates, one for each part; named methods are YAML files of them.

Annotations are evaluated here, so that subclasses in other modules have the types of the fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.limits import Count, Epochs
from nasrun.search_algo.gates.gumbel import Gumbel, ReinMax, StraightThrough
from nasrun.search_algo.gates.learned import LearnedAlgo
from nasrun.search_algo.gates.perturbation import Perturbation
from nasrun.search_algo.gates.readiness import varied_paths
from nasrun.search_algo.gates.regulariser import Regulariser
from nasrun.search_algo.gates.relaxation import Dirichlet, Relaxation, Sigmoid, Softmax
from nasrun.search_algo.gates.resource import CostFactor, ExpectedCost, ResourceTerm
from nasrun.search_algo.gates.selection import Selection, check_threshold
from nasrun.search_algo.gates.skips import check_skips
from nasrun.search_algo.gates.soft_gates import GateAdam
from nasrun.search_algo.gates.stop import Stop
from nasrun.search_algo.gates.temperature import Temperature
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import DeeperCells, has_deeper_cells, has_edges_by_node
from nasrun.search_space.gates import has_mixtures
from nasrun.streams import Streams

RelaxationName = Literal[
    "softmax", "sigmoid", "dirichlet", "gumbel", "straight_through", "reinmax", "binary"
]

RELAXATIONS: Mapping[str, Relaxation] = {
    "softmax": Softmax(),
    "sigmoid": Sigmoid(),
    "dirichlet": Dirichlet(),
    "gumbel": Gumbel(),
    "straight_through": StraightThrough(),
    "reinmax": ReinMax(),
    "binary": Softmax(),  # its shares; paths and pairs are sampled by ``BinaryGates``
}

CONSTANT = Temperature(start=1.0, end=1.0, fall="linear", rate=0.0)
NO_PENALTY = ResourceTerm(cost="none", weight=0.0)
NO_FACTOR = CostFactor(cost="none", reference=30, factor=0.2, power=0.3)
NO_REGULARISER = Regulariser(
    zero_one=0.0, entropy=0.0, beta_decay=0.0, kl=0.0, skip_dropout=0.0, auxiliary_skip=0.0
)
NO_PERTURBATION = Perturbation(kind="none", start=0.03, end=0.3, steps=7)
NO_STOP = Stop(
    rule="epochs",
    then="train",
    from_epoch=10.0,
    skips=2,
    window=5,
    delta=4,
    factor=1.3,
    iterations=12,
    agreement=0.4,
    looks=20,
)
LARGEST = Selection(rule="largest", threshold=0.85, epochs=0.0, images=1000)


def check_mixtures(space: SearchSpace) -> None:
    """Raise UserError if the space opens one option of a decision at a time."""
    if "mix" not in space.gate_kinds:
        raise MissingCapabilityError(
            f"search_algo learns mixtures of options, and {space.name} opens one option of a "
            "decision at a time",
            group="search_space",
            has=has_mixtures,
        )


def check_edges(space: SearchSpace) -> None:
    """Raise UserError if no two edges end in one node, so that weights of edges would all be 1."""
    if all(len(edges) == 1 for edges in space.edges_by_node):
        raise MissingCapabilityError(
            "search_algo.edges=true shares a weight among the edges that end in one node, and "
            f"{space.name} has no such nodes: set search_algo.edges=false, or",
            group="search_space",
            has=has_edges_by_node,
        )


def check_free(space: SearchSpace) -> None:
    """Raise UserError if random paths do not differ in their parameter-free operations."""
    if not varied_paths(space, 20, Streams(0)):
        raise MissingCapabilityError(
            "search_algo.rest=until_ready compares paths by their parameter-free operations, and "
            f"those of {space.name} do not differ in them: set search_algo.rest=epochs, or",
            group="search_space",
            has=has_edges_by_node,
        )


@dataclass(frozen=True, kw_only=True)
class GateSettings(LearnedAlgo):
    """Settings of gates that are learned, each of a part; defaults leave a part out.

    adam: the optimiser of the logits.
    rest_epochs, spread, centre: see ``SoftGates``.
    edges: whether PC-DARTS' edge normalisation is used.
    relaxation, temperature: how logits become weights; see ``relaxation.py`` and ``gumbel.py``.
    levels: 2: the gates learn from held-out images, in steps of their own; 1: from the weights' own
    step, on the same images.
    order: 1: the gradient at the present weights; 2: after one more step of the weights.
    every, steps: after so many steps of the weights, so many steps of the gates.
    resource: penalty of large networks. cost: factor of the loss; in both, the expected cost.
    regulariser, perturbation, stop, selection: see there.
    rest: when the gates begin to learn: after ``rest_epochs``, or also not before random paths are
    the worse the more parameter-free operations they have (``until_ready``, see ``readiness.py``).
    paths: number of these paths.
    """

    adam: GateAdam
    rest_epochs: Epochs
    spread: Annotated[float, Field(ge=0, le=10)]
    centre: Annotated[float, Field(ge=-100, le=100)] = 0.0
    edges: bool = False
    relaxation: RelaxationName = "softmax"
    temperature: Temperature = CONSTANT
    levels: Literal[1, 2] = 2
    order: Literal[1, 2] = 1
    every: Count = 1
    steps: Count = 1
    resource: ResourceTerm = NO_PENALTY
    cost: CostFactor = NO_FACTOR
    regulariser: Regulariser = NO_REGULARISER
    perturbation: Perturbation = NO_PERTURBATION
    stop: Stop = NO_STOP
    selection: Selection = LARGEST
    rest: Literal["epochs", "until_ready"] = "epochs"
    paths: Annotated[int, Field(ge=2, le=1000)] = 60

    def __post_init__(self) -> None:
        for wrong, told in self._contradictions():
            if wrong:
                raise UserError(told)

    def _contradictions(self) -> list[tuple[bool, str]]:
        """List settings that contradict each other, whether they are so, and what to say then."""
        rule, one = self.relaxation_rule(), "search_algo.levels=1: the gates have no steps of their"
        hard = rule.hard or self.relaxation == "binary"
        choice = f"search_algo.relaxation={self.relaxation}"
        temperatures = self.temperature.start, self.temperature.end
        weights = self.perturbation.kind != "none" or bool(self.regulariser.auxiliary_skip)
        return [
            (
                self.levels == 1 and (self.order, self.every, self.steps) != (1, 1, 1),
                f"{one} own, so that search_algo.order, every and steps must be 1",
            ),
            (
                self.levels == 1
                and (
                    self.relaxation == "binary"
                    or self.cost.cost != "none"
                    or self.perturbation.kind != "none"
                    or self.stop.rule == "agreement"
                ),
                f"{one} own, which relaxation=binary, cost, perturbation and stop.rule=agreement "
                "need: set search_algo.levels=2",
            ),
            (
                hard and (self.edges or weights),
                f"{choice} opens one option with weight 1, so that edges, perturbation and "
                "regulariser.auxiliary_skip have no place: leave them out, or take softmax",
            ),
            (
                self.relaxation == "sigmoid" and self.perturbation.kind != "none",
                f"{choice}: the weights that are perturbed must add up to 1: take softmax",
            ),
            (
                self.relaxation == "reinmax" and min(temperatures) < 1,
                f"{choice} needs temperatures of 1 or more: set search_algo.temperature.start and "
                "end",
            ),
            (
                self.relaxation == "binary"
                and (
                    self.order == 2
                    or self.cost.of_sample
                    or self.selection.rule == "perturbation"
                    or self.stop.rule == "eigenvalue"
                ),
                f"{choice} compares two options, so that order=2, cost.of_sample, "
                "stop.rule=eigenvalue and selection.rule=perturbation have no place: leave them "
                "out, or take another relaxation",
            ),
            (
                bool(self.regulariser.kl) and self.relaxation != "dirichlet",
                f"{choice} has no Dirichlet distribution, which regulariser.kl is about: set it to "
                "0, or take relaxation=dirichlet",
            ),
            (
                self.order == 2 and self.stop.rule == "agreement",
                "search_algo.stop.rule=agreement compares gradients at the present weights: set "
                "search_algo.order=1",
            ),
            (
                self.stop.then == "end" and self.stop.rule not in ("skips", "eigenvalue"),
                f"search_algo.stop.then=end: with stop.rule={self.stop.rule} the gates learn to "
                "the last epoch: take stop.rule=skips or eigenvalue, or then=train",
            ),
            (
                self.stop.then == "end" and self.selection.rule == "perturbation",
                "search_algo.stop.then=end leaves no epochs for selection.rule=perturbation: set "
                "stop.then=train",
            ),
            (
                self.selection.rule == "perturbation" and self.selection.epochs == 0,
                "search_algo.selection.epochs=0: the decisions of selection.rule=perturbation take "
                "some epochs at the end of the training",
            ),
        ]

    def relaxation_rule(self) -> Relaxation:
        """Return the rule by which logits become weights."""
        return RELAXATIONS[self.relaxation]

    def costs(self, candidates: Candidates) -> dict[str, ExpectedCost | None]:
        """Return the expected costs of ``MixedGates``; raises UserError if one is bad."""
        factor = ExpectedCost.measured(self.cost.cost, candidates)
        if factor is not None:
            self.cost.check(factor)
        return {
            "resource": ExpectedCost.measured(self.resource.cost, candidates),
            "factor": factor,
        }

    def check(self, space: SearchSpace) -> None:
        check_mixtures(space)
        if self.edges:
            check_edges(space)
        if self.regulariser.auxiliary_skip:
            check_skips(space, "search_algo.regulariser.auxiliary_skip")
        if self.regulariser.skip_dropout and not isinstance(space, DeeperCells):
            raise MissingCapabilityError(
                "search_algo.regulariser.skip_dropout acts on the skip connections of cells, and "
                f"{space.name} has none that it knows: set it to 0, or",
                group="search_space",
                has=has_deeper_cells,
            )
        if self.selection.rule == "threshold":
            check_threshold(space)
        if self.stop.rule == "skips":
            check_skips(space, "search_algo.stop.rule=skips")
        if self.rest == "until_ready":
            check_free(space)
