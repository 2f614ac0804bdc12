"""A smoke shortens what is asked for, and replaces nothing of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasrun.config.compose import compose, flatten
from nasrun.config.efforts import made_up

SHORT = ("effort=smoke",)


def settings(*words: str, folder: Path | None = None) -> dict[str, object]:
    return flatten(compose([*SHORT, *words], str(folder) if folder else None))


@pytest.mark.few(1)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "fashion_mnist", "imagenet"])
def test_a_published_set_in_a_folder_of_the_user_stays(dataset: str) -> None:
    found = settings(f"dataset={dataset}", "dataset.root=/my/images")
    assert found["dataset.root"] == "/my/images"
    assert "Synthetic" not in str(found["dataset._target_"])
    assert found["dataset.train_images"] <= 1000  # type: ignore[operator]
    again = settings(f"dataset={dataset}")  # a composition leaves nothing behind for the next
    assert str(again["dataset._target_"]).endswith("Synthetic")


def test_tables_of_the_user_stay() -> None:
    truth = ["task=rank", "search_space=nas_bench_201"]
    table = ["evaluator@rank.truth=table", "rank.truth.path=mine.csv"]
    found = settings(*truth, *table)
    assert found["rank.truth.path"] == "mine.csv" and "rank.truth.trainer.epochs" not in found
    assert found["rank.architectures.count"] == 6
    found = settings("experiment=rank_nb201_cifar10", "task=rank", "rank.truth.path=mine.csv")
    assert str(found["rank.truth._target_"]).endswith("TableEvaluator")
    assert found["rank.truth.architecture"] == "ops"  # of the recipe
    assert found["rank.architectures.count"] == 6  # few of all
    listed = ["architectures@rank.architectures=listed", "rank.architectures.path=mine.txt"]
    found = settings(*truth, *table, *listed)
    assert found["rank.architectures.path"] == "mine.txt"
    replaced = settings("experiment=rank_nb201_cifar10", "task=rank")
    assert str(replaced["rank.truth._target_"]).endswith("StandaloneEvaluator")
    found = settings("experiment=regret_by_tau", "task=compare", "evaluator.path=mine.csv")
    assert found["evaluator.path"] == "mine.csv" and found["compare.taus"]


def test_a_table_of_latencies_is_one_of_full_networks() -> None:
    full = flatten(compose(["search_space=darts_cell"]))
    found = settings("search_space=darts_cell", "budget.latency.table=mine.csv")
    keys = [key for key in full if key.startswith("search_space.final.")]
    assert keys and all(found[key] == full[key] for key in keys)
    assert found["search_space.search.cells"] == 3
    assert found["budget.latency.table"] == "mine.csv"


def test_a_recipe_of_the_user_may_name_them(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: cifar10\n"
        "dataset: { root: /my/images }\n"
    )
    found = settings("experiment=mine", folder=tmp_path)
    assert str(found["dataset._target_"]).endswith("CIFAR10")
    assert found["dataset.root"] == "/my/images" and found["dataset.train_images"] == 32


def test_a_data_set_that_builds_on_image_folder_is_shortened(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    content = "defaults: [image_folder, _self_]\nroot: /my/birds\n"
    (tmp_path / "dataset" / "birds.yaml").write_text(content)
    found = settings("dataset=birds", folder=tmp_path)
    assert (found["dataset.root"], found["dataset.first_images"]) == ("/my/birds", 32)


def test_what_is_made_up_is_said() -> None:
    assert "images in place of cifar10" in made_up([*SHORT, "dataset=cifar10"], None)
    assert "images in place of cifar10" in made_up([*SHORT, "experiment=spos_cifar10"], None)
    for words in ("dataset=cifar10 dataset.root=/x", "dataset=synthetic", "dataset=digits", ""):
        assert not made_up([*SHORT, *words.split()], None)
    assert not made_up(["dataset=cifar10"], None)
