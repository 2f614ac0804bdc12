"""``nasrun rank`` from the command line: what it writes, and what it says to nonsense."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Images, few_images, space_of
from torch import Tensor

from nasrun.cli.main import main
from nasrun.errors import UserError
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.task.rank import check_same
from nasrun.task.rank_progress import RankProgress, images_within_share
from nasrun.task.scoring import Scores
from nasrun.trainer.step import BatchGradients
from nasrun.values import Cost, Problem, Trial

TINY = [
    *("dataset=synthetic", "dataset.train_images=32", "dataset.validation=32"),
    *("dataset.test_images=16", "trainer.epochs=2", "trainer.batch_size=8", "rank.k=3"),
    *("rank.resamples=50", "threads=1", "hydra.run.dir=run", "sampler=uniform"),
]
MACRO_SPACE = ["nas_bench_macro", "effort=full", "search_space.final.width=0.25"]
MACRO = [
    *("search_space=nas_bench_macro", "search_space.search.width=0.125"),
    *("search_space.final.width=0.25", "rank.architectures.count=6", *TINY),
]
STANDALONE = [
    *("rank.truth.trainer.epochs=6", "rank.truth.trainer.batch_size=8"),
    "rank.truth.trainer.schedule.lr=0.1",
]
LISTED = [
    *MACRO[:3],
    *TINY,
    *("architectures@rank.architectures=listed", "rank.architectures.path=list.txt"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def macro() -> SearchSpace:
    return space_of("nas_bench_macro")


def write_table(space: SearchSpace, path: Path = Path("table.csv"), *, tied: bool = False) -> None:
    """Made-up accuracies of the whole space, two seeds; the first decision counts most."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "a", "b"])
        for index, architecture in enumerate(space.every()):
            score = 50.0 if tied else 90 - index / 100
            writer.writerow([space.write(architecture), score, score + (index % 7) / 50])


def table(*columns: str) -> list[str]:
    return [
        "evaluator@rank.truth=table",
        "rank.truth.path=table.csv",
        "rank.truth.architecture=arch",
        f"rank.truth.score=[{','.join(columns or ('a',))}]",
    ]


def rows_of(run: str) -> list[dict[str, str]]:
    with Path(run, "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rank(*words: str) -> int:
    """Of two words for one key the last counts."""
    by_key = {word.split("=", 1)[0]: word for word in words}
    return main(["rank", *by_key.values()])


def error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that is said; exit status 2."""
    assert rank(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.soak
def test_a_table_with_seeds(macro: SearchSpace, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(macro)
    words = ["rank.epochs=[1]", "rank.architectures.count=12"]
    assert rank(*MACRO, *table("a", "b"), *words) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["architectures"] == 12
    assert 0 < result["ceiling_kendall"] <= 1
    assert 0 < result["ranking_seconds"] < 1000
    assert result["kendall_low"] <= result["kendall"] <= result["kendall_high"]
    report = json.loads(Path("run/ranking.json").read_text())
    assert list(report["epochs"]) == ["1", "2"]
    rows = rows_of("run")
    assert len({row["architecture"] for row in rows}) == 12
    images, published = Problem(3, 8, 4), space_of(*MACRO_SPACE)
    for row in rows:
        architecture = macro.parse(row["architecture"])
        assert float(row["truth"]) == pytest.approx(
            (float(row["truth_0"]) + float(row["truth_1"])) / 2
        )
        # the sizes are those of the published networks, not of the narrow supernet
        assert int(row["params"]) == published.cost(architecture, images, "final").params
    for name in ("params", "macs"):
        bias = report["size_bias"][name]
        assert bias["kendall"]["value"] == result[f"size_bias_{name}"]
        assert sum(bias["steps"]) == pytest.approx(1)
        assert any(loss is not None and 0.1 < loss < 10 for loss in bias["losses"])
    assert Path("run/size_bias.png").stat().st_size > 5000
    shown = capsys.readouterr().out
    assert "steps by third" in shown
    assert "one ground-truth seed against another" in shown
    assert "too few to tell two methods apart" in shown
    for name in ("ranking", "tau_by_epoch"):
        assert Path(f"run/{name}.png").stat().st_size > 5000
        assert Path(f"run/{name}.svg").stat().st_size > 5000


@pytest.mark.few(1)
@pytest.mark.parametrize("sampler", ["uniform", "sandwich"])
@pytest.mark.parametrize("train_on", ["pool", "space"])
def test_the_paths_that_are_trained(
    train_on: str, sampler: str, macro: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``pool`` each of them is a ranked one; of the 6,561 of the space hardly one is."""
    write_table(macro)
    trained: list[Gates] = []
    add = BatchGradients.add

    def watched(
        self: BatchGradients, images: Tensor, labels: Tensor, gates: Any, *rest: Any
    ) -> Any:
        trained.extend(gates)
        return add(self, images, labels, gates, *rest)

    monkeypatch.setattr(BatchGradients, "add", watched)
    words = [f"rank.train_on={train_on}", f"sampler={sampler}", "trainer.epochs=4"]
    assert rank(*MACRO, *table(), *words) == 0
    ranked = {macro.parse(row["architecture"]).choices for row in rows_of("run")}
    assert len(ranked) == 6 and len(trained) == 16 * (4 if sampler == "sandwich" else 1)
    inside = [gates in ranked for gates in trained]
    assert all(inside) if train_on == "pool" else not all(inside)


@pytest.mark.soak
def test_progress_is_logged_and_changes_nothing(macro: SearchSpace) -> None:
    """Weights, running statistics, scores and all other metrics are the same bytes."""
    write_table(macro)
    words = [*MACRO, *table(), "rank.epochs=[1]", "trainer.epochs=4"]
    assert rank(*words) == 0
    assert rank(*words, "rank.every=1", "rank.progress_sample=4", "hydra.run.dir=watched") == 0
    for name in ("supernet.safetensors", "ranking.csv", "ranking.json", "trials.jsonl"):
        assert Path("run", name).read_bytes() == Path("watched", name).read_bytes(), name
    plain, watched = (
        [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "watched")
    )
    progress = [line for line in watched if line["stage"] == "rank/progress"]
    assert [line for line in watched if line not in progress] == plain
    assert {line["epoch"] for line in progress} <= {1, 2, 3, 4} and progress
    assert all(-1 <= line["kendall"] <= 1 for line in progress)
    assert all(line["step"] == 4 * line["epoch"] for line in progress)


@pytest.mark.soak
@pytest.mark.parametrize("stop_at", [2, 4])
def test_progress_of_an_interrupted_run_ends_the_same(
    stop_at: int, macro: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped just after a measurement, which no checkpoint holds yet; the fourth is the last."""
    write_table(macro)
    words = [*MACRO, *table(), "trainer.epochs=4", "rank.every=1", "checkpoint.steps=1"]
    assert rank(*words) == 0
    measure, calls = RankProgress.measure, []

    def stopping(self: RankProgress, *arguments: Any) -> None:
        measure(self, *arguments)
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(RankProgress, "measure", stopping)
    assert rank(*words, "hydra.run.dir=stopped") == 130
    assert main(["resume", "stopped"]) == 0
    for name in ("metrics.jsonl", "ranking.csv", "ranking.json", "supernet.safetensors"):
        assert Path("run", name).read_bytes() == Path("stopped", name).read_bytes(), name


@pytest.mark.soak
def test_progress_needs_a_truth_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*MACRO, *STANDALONE, "rank.architectures.count=3", "rank.truth_store=store"]
    said = error(capsys, *words, "rank.every=1")
    assert "rank.every=1: the truth is not known while the supernet trains" in said
    assert not Path("run").exists()
    assert rank(*words) == 0
    capsys.readouterr()
    assert rank(*words, "rank.every=1", "hydra.run.dir=again") == 0
    assert "rank.every=1: measuring takes about " in capsys.readouterr().out
    metrics = Path("again/metrics.jsonl").read_text()
    assert "rank/progress" in metrics


def test_progress_takes_a_twentieth_of_the_passes_at_most() -> None:
    images = few_images()
    splits = replace(images, train=Images(45_000), validation=Images(5000))
    assert images_within_share(30, 1, 200, splits) == 200  # 30 * 200 of 3 * 45,000: 4.4 %
    for sample, every in ((30, 1), (30, 3), (300, 2)):
        most = images_within_share(sample, every, 5000, splits)
        assert sample * most <= 0.05 * 3 * every * 45_000 < sample * (most + 1)
    assert images_within_share(30, 1, 200, images) == 16  # all that there are


def test_samplers_that_train_no_pool_are_refused(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(macro)
    said = error(capsys, *MACRO, *table(), "rank.train_on=pool", "sampler=fair")
    assert "rank.train_on=pool trains the ranked architectures" in said
    assert "take rank.train_on=space, or take sampler=proportional or sandwich" in said
    assert not Path("run").exists()


@pytest.mark.soak
def test_another_runs_supernet_scores_as_it_did_there(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(macro)
    assert rank(*MACRO, *table()) == 0
    assert rank(*MACRO, *table(), "from=run", "hydra.run.dir=again") == 0
    columns = [
        [(row["architecture"], list(row.values())[-1]) for row in rows_of(run)]
        for run in ("run", "again")
    ]
    assert columns[0] == columns[1]
    assert "ranking_seconds" not in json.loads(Path("again/result.json").read_text())
    capsys.readouterr()
    assert "nowhere" in error(capsys, "from=nowhere", "threads=1")


@pytest.mark.soak
def test_stand_alone_truth_is_trained_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *STANDALONE,
        "rank.architectures.count=4",
        "rank.truth_seeds=2",
        "rank.truth_store=store",
    ]
    assert rank(*MACRO, *words) == 0
    (store,) = Path("store").iterdir()
    lines = store.read_text().splitlines()
    assert len(lines) == 1 + 4 * 2
    assert rank(*MACRO, *words, "hydra.run.dir=again", "trainer.epochs=3") == 0
    assert store.read_text().splitlines() == lines  # nothing was trained again
    assert Path("run/ranking.csv").read_text() != Path("again/ranking.csv").read_text()
    # Other networks' results must not be taken for these: an altered size is noticed.
    first = json.loads(lines[1])
    first["trial"]["cost"]["params"] += 1
    store.write_text("\n".join([lines[0], json.dumps(first), *lines[2:]]) + "\n")
    capsys.readouterr()
    assert rank(*MACRO, *words, "hydra.run.dir=third") == 2
    assert "it was trained with another definition of the networks" in capsys.readouterr().err
    # Another setting of the truth has a file of its own.
    changed = [*words, "rank.truth.trainer.epochs=5", "hydra.run.dir=fourth"]
    assert rank(*MACRO, *changed) == 0
    assert len(list(Path("store").iterdir())) == 2


def test_fewer_than_three(macro: SearchSpace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "greater than or equal to 3" in error(capsys, *MACRO, "rank.architectures.count=2")
    Path("list.txt").write_text("00000000\n11111111 # two\n")
    assert "three architectures at least, not 2" in error(capsys, *LISTED)


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("00000000\n11111111\n22222222\n00000000\n", "line 4: the same network as line 1"),
        # an identity inside a stage does nothing wherever it stands
        ("22222222\n20222222\n22220222\n22202222\n", "line 4: the same network as line 3"),
        ("00000000\n11111111\n22222223\n", "line 3: layer7/op = 3 is out of range"),
        ("00000000\n11111111\n2222\n", "line 3: an architecture of nas_bench_macro has 8"),
        ("00000000\nconv_3x3\n", "line 2"),
    ],
)
def test_lists_with_duplicates_and_strangers(
    lines: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list.txt").write_text(lines)
    assert said in error(capsys, *LISTED)
    assert not Path("run").exists()


@pytest.mark.soak
def test_lists_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs rank.architectures.path=FILE" in error(capsys, *LISTED[:-1])
    assert "cannot read" in error(capsys, *LISTED, "rank.architectures.path=absent.txt")
    Path("binary").write_bytes(bytes(range(256)))
    assert "cannot read" in error(capsys, *LISTED, "rank.architectures.path=binary")


@pytest.mark.soak
def test_tied_truth_keeps_what_was_measured(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(macro, tied=True)
    said = error(capsys, *MACRO, *table())
    assert "all 6 true accuracies are 0.5: they rank nothing" in said
    assert "ranking.csv" in said
    rows = rows_of("run")
    assert len(rows) == 6
    assert all(0 <= float(row["score_2"]) <= 1 for row in rows)


@pytest.mark.soak
def test_one_tied_epoch_does_not_stop_the_report(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first epoch's learning rate is next to nothing, and its scores are those of chance."""
    write_table(macro)
    words = [
        "trainer.epochs=3",
        "rank.epochs=[1]",
        "trainer.schedule.warmup_epochs=0",
        "evaluator.images=2",
        "rank.architectures.count=3",
        "evaluator.batch_norm=inherited",
        "seed=5",
    ]
    status = rank(*MACRO, *table(), *words)
    rows = rows_of("run")
    first, last = ([row[f"score_{epoch}"] for row in rows] for epoch in (1, 3))
    out = capsys.readouterr()
    if len(set(last)) == 1:
        assert status == 2
        assert "they rank nothing" in out.err
    else:
        assert status == 0
        assert ("no ranking after 1 epochs" in out.out) == (len(set(first)) == 1)


@pytest.mark.soak
def test_tables_of_another_space_or_column(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(space_of("nas_bench_201"))
    assert "no row of the table is an architecture of nas_bench_macro" in error(
        capsys, *MACRO, *table()
    )
    write_table(macro)
    assert "has no such column" in error(capsys, *MACRO, *table("c"))
    assert "no such file" in error(capsys, *MACRO, *table(), "rank.truth.path=absent.csv")
    assert not Path("run").exists()


def test_scores_of_a_supernet_are_no_truth(capsys: pytest.CaptureFixture[str]) -> None:
    said = error(capsys, *MACRO, "evaluator@rank.truth=supernet")
    assert "supernet are no ground truth" in said
    said = error(capsys, *MACRO, "evaluator=standalone")
    assert "rank measures the scores of a supernet" in said


def test_epochs_that_fall(capsys: pytest.CaptureFixture[str]) -> None:
    assert "must rise from each to the next" in error(capsys, *MACRO, "rank.epochs=[5,3]")
    assert "must rise from each to the next" in error(capsys, *MACRO, "rank.epochs=[3,3]")


@pytest.mark.soak
def test_samples_that_the_space_cannot_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has not 6500 different architectures" in error(
        capsys, *MACRO, "rank.architectures.count=6500", "rank.k=3"
    )
    every = "architectures@rank.architectures=all"
    assert "choose a sample" in error(capsys, every, "search_space=nao_cell", *TINY)


def test_samples(macro: SearchSpace) -> None:
    """Laws of the choices: distinct networks, spread or close in size as their names say."""
    from nasrun.architectures.samples import All, BySize, SimilarSize, Uniform

    images = Problem(3, 16, 10)
    rng = np.random.default_rng(0)

    def sizes(found: list) -> np.ndarray:  # type: ignore[type-arg]
        assert len({macro.canonical(architecture) for architecture in found}) == len(found)
        return np.log([macro.cost(architecture, images).params for architecture in found])

    assert (
        len(sizes(All().choose(macro, images, rng).architectures)) == 3969
    )  # the published number
    uniform = sizes(Uniform(count=60).choose(macro, images, rng).architectures)
    by_size = BySize(count=60, size="params", strata=6, drawn=600).choose(macro, images, rng)
    diverse = sizes(by_size.architectures)
    assert by_size.strata is not None and Counter(by_size.strata).keys() == set(range(6))
    by_stratum = [
        [s for s, i in zip(diverse, by_size.strata, strict=True) if i == k] for k in range(6)
    ]
    assert all(max(a) < min(b) for a, b in pairwise(by_stratum))
    alike = SimilarSize(count=60, size="params", quantile=0.5, drawn=600)
    similar = sizes(alike.choose(macro, images, rng).architectures)
    assert similar.std() < 0.3 * uniform.std()
    assert diverse.std() > 1.2 * uniform.std()
    quantiles = [
        sizes(
            SimilarSize(count=20, size="params", quantile=q, drawn=300)
            .choose(macro, images, rng)
            .architectures
        ).mean()
        for q in (0, 0.5, 1)
    ]
    assert quantiles == sorted(quantiles)


@pytest.mark.soak
def test_what_the_table_lacks_is_left_out_and_counted(
    macro: SearchSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["00000000", "11111111", "22222222", "01201201", "21021021"]
    Path("list.txt").write_text("\n".join(words))
    rows = [f"{word};{index},5" for index, word in enumerate(words)]
    Path("table.csv").write_text("\n".join(["arch;a", *rows[:2]]))
    said = error(capsys, *LISTED, *table())
    assert "no score for 3 of the 5 chosen architectures, e.g. 22222222; a ranking needs" in said
    assert not Path("run").exists()
    Path("table.csv").write_text("\n".join(["arch;a", *rows[:2], *rows[3:]]))
    assert rank(*LISTED, *table()) == 0
    assert "for 1 of the 5 chosen architectures, e.g. 22222222; the other 4 are ranked" in (
        capsys.readouterr().out
    )
    assert [row["architecture"] for row in rows_of("run")] == [*words[:2], *words[3:]]
    assert [float(row["truth"]) for row in rows_of("run")] == [0.005, 0.015, 0.035, 0.045]


def test_a_run_ranks_the_architectures_that_it_began_with(macro: SearchSpace) -> None:
    every = [*macro.every()][:4]
    scores = Scores(macro)
    scores.trials_of("score/epoch1").extend(Trial(each, 0.5, Cost(1, 1), 0) for each in every[:2])
    check_same(every, scores)
    for others in (every[1:], every[:1], []):
        with pytest.raises(UserError, match="are not those that the run began with"):
            check_same(others, scores)
