"""``nasrun retrain``: train one architecture from scratch, and test it."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from nasrun.architectures.given import Given, find_place, read_given, with_own_space
from nasrun.building.allowed import find_class
from nasrun.dataset.base import Batch, Split, Splits
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy_by_class
from nasrun.evaluator.batch_norm import estimate_statistics
from nasrun.metrics.share import wilson
from nasrun.model.manifest import Manifest, Origin
from nasrun.report.figures_architecture import save_graphs
from nasrun.report.run_files import RunDirectory
from nasrun.run.commands import command, shown
from nasrun.run.end_box import accuracy, sizes
from nasrun.run.files import at_home, read_bytes, read_json_or_text
from nasrun.run.layout import (
    ARCHITECTURE,
    ARCHITECTURE_PICTURE,
    FRONT,
    NETWORK,
    NETWORK_BEST,
    NETWORK_LAST,
    TRIALS,
)
from nasrun.run.run import Run
from nasrun.run.stages import PlannedStage
from nasrun.search_space.base import Network
from nasrun.task.base import Task
from nasrun.task.batch_picture import show_batch
from nasrun.task.health import warn_of_collapse
from nasrun.task.scoring import SameImages
from nasrun.task.setup import Setup
from nasrun.task.stages import retrain_stages
from nasrun.task.validation import Validation
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import Training
from nasrun.values import Architecture

MAX_PICTURE_BYTES = 2**26
"""Size of a picture that is shown in TensorBoard as well."""

MAX_WORDS = 6
"""Lines of an architecture in words that are shown; longer ones are in the picture."""


class RetrainTask(Task):
    """Train one architecture from scratch; it comes from a run, its front, or a file."""

    takes = ARCHITECTURE
    repeats_shapes = True

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Path | None:
        """Return the file with the architecture; raises UserError unless exactly one is given."""
        directory, file, pick = (settings.get(key) for key in ("from", "architecture", "pick"))
        trial = settings.get("trial")
        if directory is None and file is None and has_one(settings):
            return None
        if (directory is None) == (file is None):
            raise UserError(
                "retrain needs either from=RUN_DIR or architecture=FILE (or a published one's name)"
            )
        if pick is not None and directory is None:
            raise UserError("pick is a place in the front of a search: it needs from=RUN_DIR")
        if trial is not None and (directory is None or pick is not None):
            raise UserError(
                f"trial is the number of a line of {TRIALS}: it needs from=RUN_DIR, and no pick"
            )
        hint = f"give the {ARCHITECTURE} of a search, or an architecture as its space writes it"
        if directory is None:
            place = find_place(str(file))
            read_given(place)
            return place.path
        if trial is not None:
            path = at_home(str(directory)) / TRIALS
            RunDirectory(path.parent).architecture_of(trial)
            return path
        if pick is None:
            path = at_home(str(directory)) / ARCHITECTURE
        else:
            path = at_home(str(directory)) / FRONT
            hint = "pick needs a search that ended with a front (search_algo=nsga2)"
        read_json_or_text(path, hint)
        return path

    @classmethod
    def copy_of_source(cls, settings: Mapping[str, Any], directory: Path) -> Path | None:
        return directory / ARCHITECTURE

    @classmethod
    def objective(cls, settings: Mapping[str, Any]) -> str | None:
        """Name the accuracy on validation images, if any are held out."""
        return retrained_objective(settings)

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan the training of a network of usual size."""
        return retrain_stages(setup, splits)

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Train the architecture of ``source``, and measure it on the test images.

        Without a source it is the only one of the search space.

        source: an architecture.json; or the front of a search, or its trials, of which the setting
        ``pick`` or ``trial`` chooses an architecture; or a file with an architecture as its space
        writes it, or with several, of which the setting ``architecture`` names one.
        """
        given: Given | None = None
        try:
            if source is None:
                (value,) = (one.to_json() for one in setup.search_space.every())
            elif source.name == FRONT:
                value = RunDirectory(source.parent).architecture_at(run.config.get("pick"))
            elif source.name == TRIALS:
                value = RunDirectory(source.parent).architecture_of(run.config.get("trial"))
            elif source.name == ARCHITECTURE:
                value = read_json_or_text(source)
            else:
                given = read_given(find_place(str(run.config["architecture"])))
                value = given.value
            architecture = setup.search_space.read(value)
        except UserError as error:
            if given is not None:
                error = with_own_space(error, given, setup.search_space.name.partition("/")[0])
            raise error if str(source) in str(error) else UserError(f"{source}: {error}") from None
        splits = setup.load(run)
        setup.check_networks(splits.problem, architecture)
        run.expect(retrain_stages(setup, splits, architecture))
        run.begin(architecture)
        run.keep("images", SameImages(splits))
        share = setup.search_space.free_share(architecture)
        warn_of_collapse(run, share, "the architecture", learned=False)
        result = run.finish(retrain_architecture(setup, run, splits, architecture))
        say_winner(setup, run, splits, architecture, result)
        return result


def has_one(settings: Mapping[str, Any]) -> bool:
    """Tell whether the search space that is configured has one architecture."""
    node = settings.get("search_space")
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return bool(getattr(find_class(target, "search_space"), "fixed", False))


def retrained_objective(settings: Mapping[str, Any]) -> str | None:
    """Name the accuracy on validation images if the network is not trained on them, else None."""
    retrain = settings["retrain"]
    held_out = retrain["images"] == "train" and retrain.get("truth") is None
    return "validation_accuracy" if held_out else None


def retrain_architecture(
    setup: Setup, run: Run, splits: Splits, architecture: Architecture
) -> dict[str, Any]:
    """Train at the final scale and measure; only here are the test images read.

    A run that is continued trains only the rest.
    """
    trainer, space = setup.retrain.trainer, setup.search_space
    if setup.retrain.truth is not None:
        return looked_up(setup, run, splits, architecture)
    panels = space.graphs(architecture, splits.problem)
    if panels and run.writes:
        save_graphs(panels, run.directory)
        picture = run.directory / f"{ARCHITECTURE_PICTURE}.png"
        run.logs.image("architecture", read_bytes(picture, MAX_PICTURE_BYTES))
    with run.streams.default("retrain/init"):
        network = space.network(architecture, splits.problem, "final", auxiliary=trainer.auxiliary)
    manifest = manifest_of(setup, run, splits, architecture)
    held_out = setup.retrain.images == "train"
    images = splits.train if held_out else splits.train_and_validation()
    training = trainer.bind(network, images, run.compute, run.streams.sub("retrain"))
    run.keep("retrain", training, label=architecture.digest)
    show_batch(run, "retrain", training)
    metadata = manifest.metadata()
    network, epochs = trained(setup, run, splits, training, architecture.digest, metadata)
    network = estimated(training, network, setup.retrain.batch_norm_epochs, run)
    run.save_weights(NETWORK, network, metadata)
    run.checkpoint()

    result: dict[str, Any] = {
        "architecture": architecture.to_json(),
        **space.cost(architecture, splits.problem, "final").to_json(),
        **epochs,
    }
    validation = {"validation": splits.validation} if held_out else {}
    for name, split in {**validation, "test": splits.test()}.items():
        plain, balanced = measure(network, split, trainer, run, splits.problem.classes)
        result[f"{name}_accuracy"], result[f"{name}_images"] = plain, len(split)
        if splits.survey is not None and splits.survey.uneven:
            result[f"{name}_balanced_accuracy"] = balanced
    run.save_weights(NETWORK, network, manifest.with_measured(result).metadata())
    return result


def manifest_of(setup: Setup, run: Run, splits: Splits, architecture: Architecture) -> Manifest:
    """Return what the file of the trained network says of it, so that it can be used by itself."""
    return Manifest.of(
        setup.search_space,
        run.config["search_space"],
        architecture,
        splits,
        auxiliary=setup.retrain.trainer.auxiliary,
        origin=Origin.of(run, setup.dataset),
    )


def trained(
    setup: Setup,
    run: Run,
    splits: Splits,
    training: Training[Network],
    label: str,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Train what is left; returns the network that is used, and what the result tells of epochs.

    label: names the network in checkpoints. metadata: of the files of weights.
    The weights that are not used are written beside it, and which ones are used is said.
    """
    if not setup.retrain.validates:
        if not training.done:
            training.train_round(run, "retrain")
        return training.network, {}
    validation = Validation(setup.retrain, splits.validation, training.network, run)
    run.keep("validation", validation, label=label)
    validation.train(training)
    best = validation.best_network(training.network)
    run.say(validation.in_words())
    if setup.retrain.use == "best":
        run.save_weights(NETWORK_LAST, training.network, metadata)
        return best, {"epochs": validation.report()}
    run.save_weights(NETWORK_BEST, best, metadata)
    return training.network, {"epochs": validation.report()}


def estimated(training: Training[Network], network: Network, epochs: float, run: Run) -> Network:
    """Return the network, with batch norm statistics of ``epochs`` epochs of their own.

    The statistics go into a copy: the state of the training, which checkpoints hold, stays as it
    was, so that a run that stops here or trains on later ends with the same bits. The batches are
    those that the training would have seen next.
    """
    steps = round(epochs * training.steps_per_epoch)
    if not steps:
        return network
    network.auxiliary_logits = None  # belongs to the last step, and cannot be copied
    network = copy.deepcopy(network)
    settings = training.settings
    batches = training.split.train_batches(
        settings.batch_size,
        streams=training.streams,
        first_step=training.global_step,
        cutout=settings.cutout,
    )

    def stoppable() -> Iterator[Batch]:
        for batch in islice(batches, steps):
            run.poll()
            yield batch

    with run.stage("batch norm", steps) as stage:
        estimate_statistics(network, stoppable(), run.compute, stage)
    return network


def looked_up(setup: Setup, run: Run, splits: Splits, architecture: Architecture) -> dict[str, Any]:
    """Look up the accuracy of the winner in ``retrain.truth``, instead of training it."""
    truth = setup.retrain.truth
    assert truth is not None  # checked by the caller  # noqa: S101
    scorer = truth.bind(setup.search_space, splits, run.compute, run.streams)
    (trial,) = scorer.score([architecture], None, run)
    cost = setup.search_space.cost(architecture, splits.problem, "final")
    return {
        "architecture": architecture.to_json(),
        **cost.to_json(),
        "true_accuracy": trial.score,
    }


def measure(
    network: Network, split: Split, trainer: Trainer, run: Run, classes: int
) -> tuple[float, float]:
    """Measure the accuracy of the trained network, and its balanced accuracy.

    Raises UserError if its outputs are not finite.
    """
    batches = split.eval_batches(trainer.batch_size)
    measured = accuracy_by_class(network, batches, run.compute, run, classes)
    if math.isnan(measured[0]):
        raise UserError(
            "the outputs of the retrained network are not finite, so it has no accuracy: lower "
            "retrain.trainer.schedule.lr"
        )
    return measured


def say_winner(
    setup: Setup, run: Run, splits: Splits, architecture: Architecture, result: dict[str, Any]
) -> None:
    """Show the winner in a few lines, and the result in the box at the end."""
    space = setup.search_space
    run.say()
    words = space.describe(architecture)
    for line in words if len(words) <= MAX_WORDS else ():
        run.say(line)
    run.say(f"architecture         {space.write(architecture)}")
    share = space.free_share(architecture)
    run.say(f"parameter-free share {100 * share:.0f} %")
    where = f"from={shown(run.directory)}"
    run.show_end(
        f"{run.task} done",
        [
            *accuracies(result),
            ("size", sizes(result["params"], result["macs"])),
            *budget_row(setup, splits, architecture, result.get("latency_ms")),
        ],
        [
            command("predict", where, "IMAGE"),
            command("export", where),
            command("retrain", where, "seed=1"),
            command("report", shown(run.directory)),
            shlex.join(["tensorboard", "--logdir", shown(logs_of(run))]),
        ],
    )


def accuracies(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows of the box: the accuracy that counts with its interval, then the others."""
    rows = []
    if "test_accuracy" in result:
        found = wilson(result["test_accuracy"], result["test_images"])
        rows.append(
            ("test accuracy", accuracy(found.value, found.low, found.high, result["test_images"]))
        )
    others = [
        f"{words} {100 * result[key]:.2f} %"
        for key, words in (
            ("test_balanced_accuracy", "balanced"),
            ("true_accuracy", "true accuracy"),
            ("validation_accuracy", "validation"),
            ("shortlist_accuracy", "shortlist"),
            ("score", "score"),
        )
        if key in result
    ]
    if others:
        rows.append(("measured also" if rows else "accuracy", ", ".join(others)))
    return rows


def budget_row(
    setup: Setup, splits: Splits, architecture: Architecture, milliseconds: float | None
) -> list[tuple[str, str]]:
    """Return the row of the box that tells the bounds and what is left of them; [] if none.

    milliseconds: latency of the whole network, as measured; None: it was not.
    """
    costs = setup.search_space.cost(architecture, splits.problem, "final").to_json()
    words = []
    for name, given in setup.budget.ranges.items():
        cost = milliseconds if name == "latency_ms" else costs.get(name)
        if not given.given or cost is None:
            continue
        digits = ",.3g" if name == "latency_ms" else ",.0f"
        if given.max is not None:
            left = 100 * (1 - cost / given.max) if given.max else 0.0
            most = f"of at most {given.max:{digits}}, {left:.1f} % left"
            words.append(f"{name} {cost:{digits}} {most}")
        else:
            words.append(f"{name} {cost:{digits}} of at least {given.min:{digits}}")
    return [("budget", "; ".join(words))] if words else []


def logs_of(run: Run) -> Path:
    """Return the folder of outputs with the curves of all runs, or else the run's own."""
    outputs = Path(str(run.config.get("outputs")))
    return outputs if run.directory.is_relative_to(outputs.absolute()) else run.directory
