"""Pages of help, the outline behind them, and comments in the composed configuration."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from rich.console import Console

from nasrun.cli import commands
from nasrun.cli.help_pages import show_word
from nasrun.cli.main import main
from nasrun.config.annotate import annotated
from nasrun.config.comments import described
from nasrun.config.compose import VERSION_BASE, flatten
from nasrun.config.docstrings import docstring
from nasrun.config.efforts import register_efforts
from nasrun.config.groups import conf_dir, files_of, groups, task_of_recipe, tasks
from nasrun.config.outline import outline
from nasrun.errors import UserError

RECIPES = list(files_of("experiment"))


def page(word: str, config_dir: str | None = None, width: int = 80) -> str:
    printed = io.StringIO()
    show_word(word, config_dir, Console(file=printed, width=width, highlight=False))
    return printed.getvalue()


def words_of(text: str) -> str:
    return " ".join(text.split())


def by_hydra(task: str, *overrides: str) -> dict[str, Any]:
    """The leaves of the configuration, as Hydra composes them, before they are resolved."""
    register_efforts()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        config = hydra.compose("config", [f"task={task}", *overrides])
    found = OmegaConf.to_container(config)
    assert isinstance(found, dict)
    return flatten(found)


def by_outline(task: str, **chosen: str) -> dict[str, Any]:
    found = outline(task, chosen).settings
    return {key: yaml.load(one.text, Loader=get_yaml_loader()) for key, one in found.items()}  # noqa: S506


@pytest.mark.few(1)
@pytest.mark.parametrize("task", list(tasks()))
def test_the_outline_is_what_hydra_composes(task: str) -> None:
    assert by_outline(task) == by_hydra(task)


@pytest.mark.few(1)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_outline_of_a_recipe_is_what_hydra_composes(recipe: str) -> None:
    task = task_of_recipe(recipe)
    assert by_outline(task, experiment=recipe) == by_hydra(task, f"experiment={recipe}")


def test_a_list_in_a_block_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("rows: # a table\n  - { a: 1, b: [2, 3] } # first\n  - c: x\n    d: 4\n  - 5\n")
    (entry,) = described(file).entries
    assert (entry.key, entry.text, entry.comment) == (
        "rows",
        "[{ a: 1, b: [2, 3] }, {c: x, d: 4}, 5]",
        "a table",
    )


def test_an_option_tells_the_meaning_of_every_setting() -> None:
    text = words_of(page("sampler=sandwich"))
    for part in (
        "sampler.random=2 random paths besides the two; BigNAS, unverified: 2",
        'sampler.size=macs params | macs: what "largest" means',
        "Class nasrun.sampler.sandwich.Sandwich",
        "Source: slimmable networks (Yu and Huang, ICCV 2019)",
    ):
        assert part in text


@pytest.mark.soak
def test_the_name_of_an_option_alone_will_do() -> None:
    assert page("sandwich") == page("sampler=sandwich")
    assert page("task=rank") == page("rank")


def test_a_group_names_its_options_and_the_default() -> None:
    text = words_of(page("sampler"))
    for option, path in files_of("sampler").items():
        assert f"{option} {described(path).summary}" in text
    assert "(Balanced NAO, Eq. 3) (default)" in text


def test_a_recipe_tells_what_it_sets_and_its_task() -> None:
    text = words_of(page("experiment=rank_macro_cifar10"))
    for part in (
        "a recipe of nasrun rank",
        "search_space=nas_bench_macro",
        "rank.truth.score=[acc1, acc2, acc3]",
        "three seeds: their mean is the truth, one against another the ceiling",
        "trainer.epochs=50",
        "nasrun rank experiment=rank_macro_cifar10",
    ):
        assert part in text
    swept = words_of(page("experiment=stability_table7"))
    assert "nasrun search -m experiment=stability_table7" in swept


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("budget.macs.max", ["budget.macs.max=null multiply-adds of one image", "budget=mobile"]),
        ("seed", ["seed=0 of all random streams of the run"]),
        ("rank.top", ["rank.top=0.1 share of the best"]),
        ("lr", ["trainer.schedule.lr=0.1", "retrain.trainer.schedule.lr=0.1"]),
        ("budget.latency", ["how latency_ms is measured", "budget.latency.repeats=20"]),
    ],
)
def test_a_setting_is_explained(key: str, parts: list[str]) -> None:
    text = words_of(page(key))
    for part in parts:
        assert part in text


def test_a_task_shows_its_own_settings_and_the_groups_that_matter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rank", "sampler=fair", "--help"]) == 0
    text = words_of(capsys.readouterr().out)
    for part in (
        "rank.k=10 architectures a search would retrain",
        "evaluator@rank.truth=standalone Accuracy after training each",
        "sampler=fair Strict fairness",
        "device=auto auto: cuda where there is one",
    ):
        assert part in text
    assert "search_algo=" not in text and "retrain=" not in text


def test_every_task_names_groups_that_it_has() -> None:
    for task in tasks():
        text = (conf_dir() / "task" / f"{task}.yaml").read_text()
        for line in re.findall(r"^# groups: (.*)$", text, re.MULTILINE):
            assert set(line.split()) <= outline(task).choices.keys(), task


def test_commands_have_pages(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.names():
        assert main([name, "--help"]) == 0
        usage = f"nasrun {name} {commands.find(name).USAGE}".rstrip()
        assert usage in words_of(capsys.readouterr().out)


@pytest.mark.few(1)
@pytest.mark.parametrize("group", [g for g in groups() if "/" not in g and g != "hydra"])
def test_every_page_fits_the_screen(group: str) -> None:
    for word in (group, *(f"{group}={option}" for option in files_of(group))):
        for line in page(word).splitlines():
            assert len(line) <= 80 or " " not in line.strip() or "from /" in line, (word, line)


def test_options_of_ones_own_have_pages(tmp_path: Path) -> None:
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text(
        "# A rule of mine. And more of it.\n_target_: not.to.be.Imported\n"
        "rate: 0.5 # a share; ours\n"
    )
    assert "mine  " in page("sampler", str(tmp_path))
    text = words_of(page("sampler=mine", str(tmp_path)))
    assert "A rule of mine. And more of it." in text and "sampler.rate=0.5 a share; ours" in text


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("sampler=sandwhich", "did you mean 'sandwich'"),
        ("samplr", "did you mean 'sampler'"),
        ("budget.mac.max", "did you mean 'budget.macs.max'"),
        ("serch", "did you mean 'search'"),
        ("sandwhich", "did you mean 'sandwich'"),
        ("trainer@retrain", "did you mean 'trainer@retrain.trainer'"),
        ("default", "default is an option of budget, health"),
        ("qwxyz", "nasrun help"),
        ("flops", "the bound is budget.macs.max, in multiply-adds"),
        ("sampler=../../x", "no such option"),
    ],
)
def test_typos_lead_to_the_nearest_name(word: str, near: str) -> None:
    with pytest.raises(UserError, match=re.escape(near)):
        page(word)


def test_help_appears_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from nasrun.cli.main import main; status = main(sys.argv[1:]) or main([]);"
        "sys.exit(status or 7 * bool({'torch', 'hydra', 'numpy'} & {*sys.modules}))"
    )
    words = ["help", "search", "sampler", "sampler=sandwich", "experiment=spos_cifar10", "lr"]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "a slow package was imported"


# Comments.


def test_comments_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "# @package _global_\n# First. Second\n# line.\n"
        "defaults:\n  - override /a: b # why\n  - _self_\n\n"
        "a: 'x # y' # of a\na2: 1 # likewise, too\nb: { c: 1, d: [2, 3] } # of b\n"
        "# above\ne: 1\nf: # of f\n  g: 2\n  h: null # of h\ni: |\n  text # none\n"
    )
    found = described(path)
    assert (found.header, found.summary, found.package) == (
        "First. Second line.",
        "First",
        "_global_",
    )
    assert found.defaults is not None
    assert [(c.key, c.option, c.comment) for c in found.defaults] == [
        ("override /a", "b", "why"),
        ("_self_", "_self_", ""),
    ]
    assert {e.key: (e.text, e.comment) for e in found.entries} == {
        "a": ("'x # y'", "of a"),
        "a2": ("1", "of a, too"),
        "b": ("", "of b"),
        "b.c": ("1", "of b"),
        "b.d": ("[2, 3]", "of b"),
        "e": ("1", "above"),
        "f": ("", "of f"),
        "f.g": ("2", "of f"),
        "f.h": ("null", "of h"),
        "i": ("| text", ""),
    }


def test_comments_never_change_a_value() -> None:
    text = "a: x\nb:\n  c: 'a long\n\n    text'\n  d: []\ne: |\n  # no comment\n"
    comments = {"a": "A", "b": "B: c", "b.c": "C # c", "b.d": "D", "e": "E"}
    found = annotated(text, comments)
    assert yaml.safe_load(found) == yaml.safe_load(text)
    assert "a: x  # A\n" in found and "b:  # B: c\n" in found and "  # C # c\n  c: 'a long" in found
    assert annotated("d: []\n", comments, "b") == "d: []  # D\n"
    assert annotated("no mapping\n", comments) == "no mapping\n"


def test_the_composed_configuration_keeps_the_comments(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["search", "experiment=spos_cifar10", "effort=smoke", "trainer.clip=1.5"]
    assert main([*words, "--cfg", "job"]) == 0
    text = capsys.readouterr().out
    shown = flatten(yaml.load(text, Loader=get_yaml_loader()))  # noqa: S506
    assert shown == by_hydra("search", *words[1:])
    for line in (
        "sampler:  # sampler=uniform: Every architecture alike (NAO-WS; SPOS, section 3.2)\n",
        "  clip: 1.5  # largest norm of the whole gradient; 0: no clipping; NAO-V2 code; "
        "set by the command line\n",
        "  ties: top5  # what orders equal scores: none | top5: accuracy among the five best "
        "classes (SPOS' code); set by experiment=spos_cifar10 (SPOS' code)\n",
    ):
        assert line in text
    assert re.search(r"^  epochs: 1  # .*; set by effort=smoke$", text, re.MULTILINE)


def test_docstrings_are_read_without_an_import() -> None:
    text = docstring("nasrun.search_space.nao_cell.NaoCell")  # re-exported by its package
    assert text.startswith("``nao_cell``: the space of NAO-V2")
    assert docstring("nasrun.no.Such") == docstring("no.Such") == docstring("") == ""


def test_each_recipe_is_read_once_for_their_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def task_of(option: str, config_dir: str | None = None) -> str:
        asked.append(option)
        return "search"

    monkeypatch.setattr("nasrun.cli.help_pages.task_of_recipe", task_of)
    assert main(["help", "experiment"]) == 0
    assert asked == RECIPES and RECIPES[-1] in capsys.readouterr().out
