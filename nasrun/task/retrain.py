"""``nasrun retrain``: train one architecture from scratch, and test it."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from nasrun.dataset.base import Batch, Split, Splits
from nasrun.errors import UserError
from nasrun.evaluator.accuracy import accuracy_by_class
from nasrun.evaluator.batch_norm import estimate_statistics
from nasrun.model.manifest import Manifest, Origin
from nasrun.report.figures_architecture import plot_graphs
from nasrun.report.run_files import RunDirectory
from nasrun.run.commands import command
from nasrun.run.files import at_home, read_json_or_text
from nasrun.run.layout import ARCHITECTURE, ARCHITECTURE_PICTURE, FRONT
from nasrun.run.run import Run
from nasrun.search_space.base import Network
from nasrun.task.base import Task
from nasrun.task.health import warn_of_collapse
from nasrun.task.scoring import SameImages
from nasrun.task.setup import Setup
from nasrun.trainer.trainer import Trainer
from nasrun.trainer.training import Training
from nasrun.values import Architecture


class RetrainTask(Task):
    """Train one architecture from scratch; it comes from a run, its front, or a file."""

    takes = ARCHITECTURE

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Path | None:
        """Return the file with the architecture; raises UserError unless exactly one is given."""
        directory, file, pick = (settings.get(key) for key in ("from", "architecture", "pick"))
        if (directory is None) == (file is None):
            raise UserError("retrain needs either from=RUN_DIR or architecture=FILE")
        if pick is not None and directory is None:
            raise UserError("pick is a place in the front of a search: it needs from=RUN_DIR")
        hint = f"give the {ARCHITECTURE} of a search, or an architecture as its space writes it"
        if directory is None:
            path = at_home(str(file)).resolve()  # the user's own file may be a link
        elif pick is None:
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

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Train the architecture of ``source``, and measure it on the test images.

        source: an architecture.json; or the front of a search, of which the setting ``pick``
        chooses an architecture; or a file with an architecture as its space writes it.
        """
        assert source is not None  # see the methods above  # noqa: S101
        try:
            if source.name == FRONT:
                value = RunDirectory(source.parent).architecture_at(run.config.get("pick"))
            else:
                value = read_json_or_text(source)
            architecture = setup.search_space.read(value)
        except UserError as error:
            raise error if str(source) in str(error) else UserError(f"{source}: {error}") from None
        splits = setup.load(run)
        setup.check_networks(splits.problem, architecture)
        run.begin(architecture)
        run.keep("images", SameImages(splits))
        result = run.finish(retrain_architecture(setup, run, splits, architecture))
        say_winner(setup, run, architecture, result)
        return result


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
    if panels := space.graphs(architecture):
        plot_graphs(panels, run.directory / ARCHITECTURE_PICTURE)
    with run.streams.default("retrain/init"):
        network = space.network(architecture, splits.problem, "final", auxiliary=trainer.auxiliary)
    manifest = manifest_of(setup, run, splits, architecture)
    held_out = setup.retrain.images == "train"
    images = splits.train if held_out else splits.train_and_validation()
    training = trainer.bind(network, images, run.compute, run.streams.sub("retrain"))
    run.keep("retrain", training, label=architecture.digest)
    if not training.done:
        training.train_round(run, "retrain")
    network = estimated(training, setup.retrain.batch_norm_epochs, run)
    run.save_weights("network", network, manifest.metadata())
    run.checkpoint()

    result: dict[str, Any] = {
        "architecture": architecture.to_json(),
        **space.cost(architecture, splits.problem, "final").to_json(),
    }
    validation = {"validation": splits.validation} if held_out else {}
    for name, split in {**validation, "test": splits.test()}.items():
        plain, balanced = measure(network, split, trainer, run, splits.problem.classes)
        result[f"{name}_accuracy"] = plain
        if splits.survey is not None and splits.survey.uneven:
            result[f"{name}_balanced_accuracy"] = balanced
    run.save_weights("network", network, manifest.with_measured(result).metadata())
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


def estimated(training: Training[Network], epochs: float, run: Run) -> Network:
    """Return the trained network, with batch norm statistics of ``epochs`` epochs of their own.

    The statistics go into a copy: the state of the training, which checkpoints hold, stays as it
    was, so that a run that stops here or trains on later ends with the same bits. The batches are
    those that the training would have seen next.
    """
    network = training.network
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


def say_winner(setup: Setup, run: Run, architecture: Architecture, result: dict[str, Any]) -> None:
    """Show the result in words, and the commands to type next."""
    run.say()
    for line in setup.search_space.describe(architecture):
        run.say(line)
    run.say()
    run.say(f"architecture         {setup.search_space.write(architecture)}")
    run.say(f"parameters           {result['params'] / 1e6:.3f} M")
    run.say(f"multiply-adds        {result['macs'] / 1e6:.2f} M")
    share = setup.search_space.free_share(architecture)
    run.say(f"parameter-free share {100 * share:.0f} %")
    for key, words in (
        ("score", "score in the search"),
        ("shortlist_accuracy", "shortlist accuracy"),
        ("validation_accuracy", "validation accuracy"),
        ("validation_balanced_accuracy", "  balanced accuracy"),
        ("test_accuracy", "test accuracy"),
        ("test_balanced_accuracy", "  balanced accuracy"),
        ("true_accuracy", "true accuracy"),
    ):
        if key in result:
            style = "bold green" if key == "test_accuracy" else None
            run.say(f"{words:20} {100 * result[key]:.2f} %", style)
    warn_of_collapse(run, share, "the architecture")
    run.say()
    run.say(f"everything is in     {run.directory}")
    run.say(f"train it again       {command('retrain', f'from={run.directory}', 'seed=1')}")
    run.say(f"look at the curves   {shlex.join(['tensorboard', '--logdir', str(logs_of(run))])}")


def logs_of(run: Run) -> Path:
    """Return the folder of outputs with the curves of all runs, or else the run's own."""
    outputs = Path(str(run.config.get("outputs")))
    return outputs if run.directory.is_relative_to(outputs.absolute()) else run.directory
