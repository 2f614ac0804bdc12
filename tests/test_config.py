"""The configuration: what may be built, with which arguments, and how files win over each other."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from nasrun.building.allowed import find_class, read_trust
from nasrun.config.build import build, build_setup, call
from nasrun.config.compose import (
    check_top_level,
    compose,
    flatten,
    parse,
    quote,
    top_level_keys,
    without_null,
)
from nasrun.config.explain import explain
from nasrun.config.fast_hydra import _own_loader, omegaconf_loader
from nasrun.config.groups import conf_dir, defaults, first_comment, groups, task_of_recipe, tasks
from nasrun.config.prune import leave_out
from nasrun.config.yaml_files import read
from nasrun.errors import UserError

HOSTILE = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.object",
    "functools.partial",
    "nasrun.config.build.os.system",
    "nasrun.streams.np.random",
    "nasrun.streams.blake2b",  # a function of another package
    "nasrun.config.groups.Path",  # a class of another package
    "nasrun.building.build.UserError.__init__",
    "nasrun.building.build.find_class",  # a function
    "nasrun.building.allowed.ALLOWED",  # a value
    "nasrun.config.build.__builtins__",
    "nasrun.config.build",  # a module
    "nasrun",
    "nasrun_evil.Thing",
    "nasrunevil.Thing",
    "torch.load",
    "torch.hub.load",
    "torch.optim.optimizer.functools",
    "torch.optim.lr_scheduler.partial",
    "torch.optimx.SGD",
    "torch.nn.Linear",
    "hydra.utils.instantiate",
    "nasrun..build.UserError",
    ".nasrun.config.build.UserError",
    "nasrun.config.build.UserError ",
    "nasrun/build.UserError",
    "nasrun.config.build:UserError",
    "nasrun.config.build.UserError\n",
    "nasrun.nowhere.Thing",
    "nasrun.search_algo.base.SearchAlgo",  # an interface
    "",
    None,
    3,
    ["nasrun.errors.UserError"],
    {"_target_": "os.system"},
    "nasrun.__main__",
    "nasrun.__main__.main",
]


@pytest.mark.parametrize("target", HOSTILE, ids=repr)
def test_hostile_targets_are_refused(target: Any) -> None:
    with pytest.raises(UserError):
        build({"x": {"_target_": target}})


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "__class__"])
def test_hydras_own_keys_mean_nothing(key: str) -> None:
    with pytest.raises(UserError, match="no such setting"):
        build({"_target_": "nasrun.streams.Streams", "seed": 1, key: ["x"]})


def test_refused_target_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_package.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="NASRUN_TRUST"):
        build({"_target_": "hostile_package.Thing"})


def test_trust_comes_from_the_environment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "class Thing:\n    def __init__(self, size: int) -> None:\n        self.size = size\n"
    (tmp_path / "my_package.py").write_text(code + "from functools import partial\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError):
        build({"NASRUN_TRUST": "my_package", "x": {"_target_": "my_package.Thing", "size": 1}})
    monkeypatch.setenv("NASRUN_TRUST", " other ,my_package")
    with pytest.raises(UserError):  # what a run changes later counts for nothing
        build({"_target_": "my_package.Thing", "size": 3})
    read_trust()
    assert build({"_target_": "my_package.Thing", "size": 3}).size == 3
    with pytest.raises(UserError):
        build({"_target_": "my_package.partial"})
    with pytest.raises(UserError):
        build({"_target_": "my_package_too.Thing"})
    assert "my_package" in sys.modules
    monkeypatch.undo()
    read_trust()


THEIRS = """
from functools import partial
from enum import Enum
def function(): pass
value = 3
class Hint:
    def __init__(self, size: "Nowhere") -> None: pass
class Child(dict): pass
class Meta(type): pass
"""


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("theirs.function", "'function' is a function"),
        ("theirs.value", "'value' is a int"),
        ("theirs.Hint", "arguments of Hint cannot be known"),
        ("theirs.Child", "arguments of Child cannot be known"),
        ("theirs.Meta", "arguments of Meta cannot be known"),
        ("builtins.dict", "arguments of dict cannot be known"),
        ("os.system", "is a builtin"),
        ("os.path.join", "is a function"),
        ("broken.Thing", r"broken cannot be imported \(RuntimeError: no\)"),
        ("leaves.Thing", r"leaves cannot be imported \(SystemExit: 3\)"),
        ("lacks.Thing", "lacks cannot be imported"),
    ],
)
def test_what_is_trusted_but_cannot_be_built(
    target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "lacks.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("NASRUN_TRUST", "theirs,broken,leaves,lacks,builtins,os")
    read_trust()
    with pytest.raises(UserError, match=said):
        build({"x": {"_target_": target}})
    sys.modules.pop("theirs", None)
    monkeypatch.undo()
    read_trust()


def test_classes_of_torch_optim() -> None:
    assert find_class("torch.optim.SGD", "").__name__ == "SGD"
    assert find_class("torch.optim.lr_scheduler.CosineAnnealingLR", "") is not None


class Sampler:
    def __init__(self, *, power: PositiveFloat = 1.0) -> None:
        self.power = power


class Other:
    pass


@dataclass
class Settings:
    size: PositiveInt
    shape: tuple[int, ...] = ()


class Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lr: float = Field(gt=0)


class Algo:
    """Every kind of hint that the parts use."""

    def __init__(
        self,
        *,
        initial: PositiveInt,
        rate: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        mode: Literal["new", "pool", "both"] = "new",
        fresh: bool = True,
        name: str = "x",
        root: Path = Path(),
        sampler: Sampler | None = None,
        settings: Settings | None = None,
        schedule: Schedule | None = None,
        threads: PositiveInt | None = None,
        share: Annotated[int, Field(gt=0, strict=True)] | Annotated[float, Field(gt=0, lt=1)] = 1,
        layers: list[PositiveInt] = [1],  # noqa: B006
    ) -> None:
        if mode == "pool" and initial == 1:
            raise UserError("a pool needs two")
        self.given = {key: value for key, value in locals().items() if key != "self"}


class Needy:
    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes above as ``nasrun.pretend.NAME``."""
    module = ModuleType("nasrun.pretend")
    for cls in (Sampler, Other, Settings, Schedule, Algo, Needy):
        monkeypatch.setattr(cls, "__module__", "nasrun.pretend")
        setattr(module, cls.__name__, cls)
    module.__dict__.update({k: v for k, v in globals().items() if k not in module.__dict__})
    monkeypatch.setitem(sys.modules, "nasrun.pretend", module)


def algo(**arguments: Any) -> Any:
    node = {"_target_": "nasrun.pretend.Algo", "initial": 2, **arguments}
    return build({"search_algo": node})["search_algo"].given


@pytest.mark.usefixtures("parts")
def test_nested_parts_are_built_first_and_values_take_their_types() -> None:
    given = algo(
        sampler={"_target_": "nasrun.pretend.Sampler", "power": 2},
        settings={"_target_": "nasrun.pretend.Settings", "size": 3, "shape": [1, 2]},
        root="a/b",
        threads=None,
        layers=[1, 2],
        rate=0,
    )
    assert given["sampler"].power == 2.0
    assert given["settings"] == Settings(3, (1, 2))
    assert given["root"] == Path("a/b")
    assert given["layers"] == [1, 2]


@pytest.mark.usefixtures("parts")
def test_plain_nodes_pass_and_are_copies() -> None:
    node = {"a": [1, {"b": None}], "c": "x"}
    built = build(node)
    assert built == node
    assert built is not node


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": -3}, "search_algo.initial = -3: must be greater than 0"),
        ({"initial": "many"}, "search_algo.initial = many: must be a valid integer"),
        ({"initial": 2.5}, "search_algo.initial = 2.5: must be a valid integer"),
        ({"initial": True}, "search_algo.initial = True: must be a valid integer"),
        ({"initial": None}, "search_algo.initial = None: must be a valid integer"),
        ({"initial": [1]}, "search_algo.initial = [1]: must be a valid integer"),
        ({"rate": 1}, "search_algo.rate = 1: must be less than 1"),
        ({"rate": float("nan")}, "search_algo.rate = nan: must be a finite number"),
        ({"rate": ""}, "search_algo.rate = '': must be a valid number"),
        ({"mode": "al"}, "search_algo.mode = al: must be 'new', 'pool' or 'both'"),
        ({"fresh": 3}, "search_algo.fresh = 3: must be a valid boolean"),
        ({"name": 3}, "search_algo.name = 3: must be a valid string"),
        ({"threads": 0}, "search_algo.threads = 0: must be greater than 0"),
        ({"share": 0}, "search_algo.share = 0: must be greater than 0"),
        ({"share": 1.5}, "search_algo.share = 1.5: must be a valid integer or must be less than 1"),
        ({"layers": [1, 0]}, "search_algo.layers[1] = 0: must be greater than 0"),
        ({"schedule": {"lr": 0}}, "search_algo.schedule.lr = 0: must be greater than 0"),
        ({"schedule": {"lr": 1, "rl": 2}}, "search_algo.schedule.rl: no such setting"),
        ({"schedule": {}}, "search_algo.schedule.lr: is missing"),
        ({"schedule": 3}, "search_algo.schedule = 3: must be"),
        ({"layers": 3}, "search_algo.layers = 3: must be a valid list"),
        ({"sampler": 3}, "search_algo.sampler = 3: must be a mapping with a _target_"),
        ({"sampler": {"power": 1}}, "must be a mapping with a _target_"),
        (
            {"sampler": {"_target_": "nasrun.pretend.Other"}},
            "search_algo.sampler must be a Sampler, not a Other",
        ),
        (
            {"sampler": {"_target_": "nasrun.pretend.Sampler", "power": 0}},
            "search_algo.sampler.power = 0: must be greater than 0",
        ),
        (
            {"initail": 3},
            "search_algo.initail: Algo has no such setting (did you mean 'initial'?)",
        ),
        ({"zzz": 3}, "search_algo.zzz: Algo has no such setting; Algo takes initial, rate"),
        ({"mode": "pool", "initial": 1}, "search_algo: a pool needs two"),
        (
            {"settings": {"_target_": "nasrun.pretend.Settings"}},
            "search_algo.settings.size is missing: Settings needs it",
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        algo(**arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("parts")
def test_missing_part() -> None:
    with pytest.raises(UserError, match="sampler is missing"):
        call(Needy, {"sampler": None}, "")
    with pytest.raises(UserError, match="sampler is missing"):
        call(Needy, {}, "")


def test_built_objects_pass_unchanged() -> None:
    sampler = Sampler()
    assert call(Needy, {"sampler": sampler}, "").sampler is sampler


# The folder, and which file wins.


def test_the_folder_of_configurations() -> None:
    assert (conf_dir() / "config.yaml").is_file()
    assert conf_dir().is_absolute()


def test_every_task_has_a_line_of_help() -> None:
    assert {"search", "retrain"} <= tasks().keys()
    assert all(len(text) > 20 for text in tasks().values())


def test_first_comment_skips_headers(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# @package _global_\n\n# What it does.\n# More.\nkey: 1\n")
    assert first_comment(file) == "What it does."
    file.write_text("key: 1\n")
    assert first_comment(file) == ""


def test_groups_of_a_further_folder(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("")
    assert "mine" in groups(str(tmp_path))["experiment"]
    assert "mine" not in groups().get("experiment", [])
    assert {"digits", "synthetic"} <= set(groups()["dataset"])


def test_every_default_exists() -> None:
    for group, option in defaults().items():
        if not group.startswith(("optional", "override")):
            assert option in groups()[group.partition("@")[0]], group


def smoke_sections() -> dict[str, set[str]]:
    """The options that each file ``conf/effort/smoke/GROUP.yaml`` has a section for."""
    files = (conf_dir() / "effort" / "smoke").glob("[!_]*.yaml")
    return {path.stem: {key for key in read(path) if key[0] != "_"} for path in files}


def test_smoke_sections_name_options_that_exist() -> None:
    """A section of an option that was renamed would be passed over in silence."""
    known = groups()
    for group, options in smoke_sections().items():
        assert options <= set(known[group]), group


def test_every_smoke_section_is_asked_for() -> None:
    entries = read(conf_dir() / "effort" / "smoke" / "_by_option.yaml")["defaults"]
    chosen = {value.strip("${}").rpartition("{")[2] for e in entries for value in e.values()}
    assert chosen == smoke_sections().keys()


def test_every_dataset_has_a_smoke_section() -> None:
    """Without one it would be downloaded."""
    assert smoke_sections()["dataset"] == set(groups()["dataset"])


def test_own_options_need_no_smoke_file(tmp_path: Path) -> None:
    (tmp_path / "search_algo").mkdir()
    content = (
        "_target_: nasrun.search_algo.random_search.RandomSearch\nevaluations: 60\nbatch: 50\n"
    )
    (tmp_path / "search_algo" / "mine.yaml").write_text(content)
    words = ["search_algo=mine", "effort=smoke"]
    assert compose(words, str(tmp_path))["search_algo"]["evaluations"] == 60
    folder = tmp_path / "effort" / "smoke" / "search_algo"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("evaluations: 3\n")
    assert compose(words, str(tmp_path))["search_algo"]["evaluations"] == 3


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A folder with an experiment that chooses options and sets values of its own."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "recipe.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /dataset: cifar10\n  - override /sampler: uniform\n"
        "search_algo:\n  initial: 601\n  step_max: 77\n"
        "dataset:\n  download: true\n"
        "shortlist:\n  count: 7\n"
    )
    return str(tmp_path)


def test_order_of_winning(recipe: str) -> None:
    assert flatten(compose([]))["search_algo.initial"] != 601

    full = flatten(compose(["experiment=recipe"], recipe))
    assert full["search_algo.initial"] == 601
    assert full["shortlist.count"] == 7
    assert full["sampler._target_"].endswith("Uniform")
    assert full["dataset._target_"].endswith("CIFAR10")

    smoke = flatten(compose(["experiment=recipe", "effort=smoke"], recipe))
    assert smoke["search_algo.initial"] < 20
    assert smoke["shortlist.count"] < 7
    assert smoke["search_algo.step_max"] == 77  # what smoke leaves alone is the experiment's
    assert smoke["sampler._target_"].endswith("Uniform")
    assert smoke["dataset._target_"].endswith("Synthetic")
    assert "dataset.download" not in smoke  # what the experiment said of its data is gone

    own = flatten(compose(["experiment=recipe", "effort=smoke", "search_algo.initial=9"], recipe))
    assert own["search_algo.initial"] == 9


def test_made_up_images_have_the_shape_of_the_dataset() -> None:
    for dataset, shape in (("cifar100", (3, 32)), ("fashion_mnist", (1, 28))):
        config = flatten(compose([f"dataset={dataset}", "effort=smoke"]))
        assert config["dataset._target_"].endswith("Synthetic")
        assert (config["dataset.channels"], config["dataset.image_size"]) == shape
    config = flatten(compose(["effort=smoke", "dataset.train_images=48"]))
    assert config["dataset._target_"].endswith("Digits")
    assert config["dataset.train_images"] == 48


def test_the_three_trainers_are_small_in_a_smoke_run() -> None:
    smoke = flatten(compose(["effort=smoke"]))
    for trainer in ("trainer", "shortlist.trainer", "retrain.trainer"):
        assert smoke[f"{trainer}.epochs"] == 1


def test_trainers_say_only_what_differs() -> None:
    config = compose([])
    trainers = config["trainer"], config["shortlist"]["trainer"], config["retrain"]["trainer"]
    assert [trainer["epochs"] for trainer in trainers] == [8, 3, 10]
    assert [trainer["schedule"]["lr_end"] for trainer in trainers] == [0.001, 0.001, 0.0]
    assert len({tuple(flatten(trainer)) for trainer in trainers}) == 1
    assert "_base" not in groups()["trainer"]


@pytest.mark.parametrize("effort", ["full", "smoke"])
@pytest.mark.parametrize("word", ["health=null", "~health", "health=none"])
def test_health_is_left_out(word: str, effort: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    recipe = tmp_path / "experiment" / "mine.yaml"
    recipe.write_text("# @package _global_\nhealth: { every: 2 }\n")
    words = [word, f"effort={effort}", "experiment=mine"]
    config = compose(words, str(tmp_path))
    assert config["health"] is None
    assert build_setup(config).health is None


def test_null_of_a_group() -> None:
    assert without_null("~health") == without_null("health=null") == "health=none"
    for word in (
        "sampler=null",
        "~sampler",
        "health.every=null",
        "~health.every",
        "seed=null",
        "x",
    ):
        assert without_null(word) == word


def test_options_of_small_groups_keep_their_dotted_overrides() -> None:
    words = ["budget=mobile", "budget.params.max=1e6", "health.every=2", "warm_up.epochs=3"]
    config = flatten(compose([*words, "path_rules=dynas", "path_rules.size_power.smallest=5"]))
    assert config["budget.macs.max"] == 600e6
    assert config["budget.params.max"] == 1e6
    assert config["health.every"] == 2
    assert config["warm_up.epochs"] == 3
    assert config["path_rules.separate_momentum"] is True
    assert config["path_rules.size_power.smallest"] == 5


def test_task_of_a_recipe(tmp_path: Path) -> None:
    for recipe, task in (
        ("darts_cifar10", "search"),
        ("rank_table6", "rank"),
        ("rank_table2", "rank"),  # as rank_table6, on which it builds
        ("shootout_nas_bench_201_nao", "compare"),
    ):
        assert task_of_recipe(recipe) == task
        assert compose([f"experiment={recipe}"])["task"] == task
    (tmp_path / "experiment").mkdir()
    own = tmp_path / "experiment" / "own.yaml"
    own.write_text("# @package _global_\ndefaults:\n  - rank_table2\n  - override /sampler: fair\n")
    assert task_of_recipe("own", str(tmp_path)) == "rank"
    assert task_of_recipe("own") == "search"


def test_a_recipe_of_another_task_is_told() -> None:
    words = ["experiment=rank_table2", "task=search"]
    with pytest.raises(Exception) as raised:
        compose(words)
    told = str(explain(raised.value, words, None))  # type: ignore[arg-type]
    assert told == "experiment=rank_table2 is a recipe for `nasrun rank`"


def every_choice() -> list[list[str]]:
    """Command lines in which each option of each group comes up; several groups at once."""
    chosen = {
        group: options
        for group, options in groups().items()
        if "/" not in group and group not in ("task", "effort", "experiment", "hydra")
    }
    words = {"architectures": "architectures@rank.architectures"}
    choices = [
        [
            "task=rank",
            *(f"{words.get(g, g)}={options[turn % len(options)]}" for g, options in chosen.items()),
        ]
        for turn in range(max(map(len, chosen.values())))
    ]
    choices += [
        [f"task={task_of_recipe(name)}", f"experiment={name}"]
        for name in groups().get("experiment", [])
    ]
    return [*choices, *([*choice, "effort=smoke"] for choice in choices)]


@pytest.mark.few(10)
@pytest.mark.parametrize("choice", every_choice(), ids=" ".join)
def test_every_option_and_experiment_is_built(choice: list[str]) -> None:
    """So the keys of each file are those of its class, and the values within their ranges."""
    config = compose(choice)
    leave_out(config, choice)
    check_top_level(config, config["task"])
    assert build_setup(config).seed == config["seed"]


def test_words_of_the_recipes_option_give_way_to_those_of_the_chosen_one() -> None:
    """So that a network of a library is trained as a recipe trains its winner."""
    line = ["experiment=spos_imagenet", "search_space=torchvision", "task=retrain"]
    config = compose(line)
    assert config["search_space"]["stem"] == "imagenet"
    assert leave_out(config, line) == ["search_space.stem"]
    assert config["search_space"]["stem"] == "fit"
    assert config["retrain"]["trainer"]["batch_size"] == 1024
    typed = [*line, "search_space.stem=cifar"]
    config = compose(typed)
    assert leave_out(config, typed) == [] and config["search_space"]["stem"] == "cifar"


def test_keys_that_nothing_reads() -> None:
    check_top_level(compose(["task=retrain"]), "retrain")
    with pytest.raises(UserError, match=r"'sede' \(did you mean 'seed'"):
        check_top_level({**compose([]), "sede": 3}, "search")
    assert "from" not in top_level_keys("supernet")


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


@pytest.mark.parametrize("text", ["a=b", "it's", "a\\", "a\\'", "a b,c", "", "${x}", "[1", "x\\\\"])
def test_quoting_for_hydra(text: str) -> None:
    override = parse(f"key={quote(text)}")
    assert override.value() == text
    assert not override.is_sweep_override()


@pytest.mark.parametrize("override", ["seed", "seed=[1", "a=b=c", "=3", "seed={a", "a b=1"])
def test_malformed_overrides(override: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(override)
    assert override in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.few(6)
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("initial=3", "did you mean 'search_algo.initial'"),
        ("sampler=proportinal", "options: fair, path_dropout, proportional"),
        ("sampler=null", "options: fair, path_dropout, proportional"),
        ("sampler=3", "options: fair, path_dropout, proportional"),
        ("trainer@shortlist.trainr=supernet", "did you mean 'trainer@shortlist.trainer'"),
        ("shortlist.trainer.epoch=1", "did you mean 'shortlist.trainer.epochs'"),
        ("dataset.zzz=1", "dataset has"),
        ("zzzzzz=1", "--cfg job"),
        ("experiment=zzz", "experiment has no such option"),
        ("seed=range(3)", "add -m"),
        ("~zzz", "zzz"),
        ("dataset.validation=${nowhere}", "nowhere"),
    ],
)
def test_mistakes_name_what_is_near(override: str, expected: str) -> None:
    with pytest.raises(Exception) as raised:
        compose([override])
    error = raised.value
    explained = error if isinstance(error, UserError) else explain(error, [override], None)  # type: ignore[arg-type]
    assert expected in str(explained)


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "wrong.yaml"
    file.write_text("# @package _global_\ndefaults:\n  - override /sampler: unifrom\n")
    with pytest.raises(Exception) as raised:
        compose(["experiment=wrong"], str(tmp_path))
    text = str(explain(raised.value, ["experiment=wrong"], str(tmp_path)))  # type: ignore[arg-type]
    assert "did you mean 'uniform'" in text


def test_environment_is_left_alone() -> None:
    before = dict(os.environ)
    compose([])
    assert dict(os.environ) == before


def test_libyaml_reads_every_file_as_the_loader_of_omegaconf_does() -> None:
    files = sorted(conf_dir().rglob("*.yaml"))[::4]
    texts = [path.read_text(encoding="utf-8") for path in files]
    texts += ["a: 1e3\nb: 2001-01-01\nc: [yes, off, ~, .inf, 0x1f, 1_000]", "- {a: !!str 1}"]
    assert len(texts) > 30
    for text in texts:
        slow = yaml.load(text, Loader=_own_loader())  # noqa: S506
        assert yaml.load(text, Loader=omegaconf_loader()) == slow  # noqa: S506
    with pytest.raises(yaml.YAMLError, match="duplicate key a"):
        yaml.load("b: {a: 1, a: 2}", Loader=omegaconf_loader())  # noqa: S506
