"""Random command lines: any override at all, and small runs of every kind.

Keys, groups, options and the choices of a setting are those that are found in conf/ and in the
classes' signatures, so new ones are sampled without a line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from hypothesis import strategies as st
from pydantic import BaseModel

from nasrun.building.allowed import find_class
from nasrun.config.build import build_setup
from nasrun.config.compose import compose, flatten, quote
from nasrun.config.groups import conf_dir, defaults, groups, task_of_recipe, tasks
from nasrun.config.yaml_files import read
from nasrun.errors import UserError
from nasrun.task.setup import Setup

NEEDED = {"retrain": ("architecture=a.json",)}
"""What a task does not go without."""

WORDS = [
    *("", "0", "1", "-1", "2", "3", "-0.0", "0.5", ".5", "1e-300", "1e300", "1e400", "-1e400"),
    *("inf", "-inf", "nan", "1_000", "0x10", "1" + "0" * 6, "1" + "0" * 9, "1" + "0" * 30),
    *("-1" + "0" * 30, "9" * 5000, "true", "false", "null", "~", "None", "???", "x" * 3000),
    *("[]", "[1,2]", "[null]", "[[1],[a]]", "[0.5,0.5,0.5]", "{}", "{a:1}", "{a:{b:[1]}}"),
    *("{_target_:os.system}", "{_target_:nasrun.sampler.uniform.Uniform}", "[" * 200),
    *("[" * 200 + "]" * 200, "{a:" * 400 + "1" + "}" * 400, "${oc.env:" * 50),
    *("${seed}", "${oc.env:HOME}", "${oc.env:NOPE}", "${oc.env:NOPE,x}", "${nope}", "${trainer}"),
    *("${trainer.epochs}", "${.}", "${..seed}", "${oc.decode:'['}", "${hydra:job.num}", "${"),
    *("${}", "$", "${nope:}", "${oc.select:nope}", "${oc.create:{a:1}}", "${now:%Y}"),
    *("1,2", "a,b", "choice(1,2)", "choice()", "range(3)", "range(0,3,0)", "interval(0,1)"),
    *("glob(*)", "shuffle(range(3))", "int(x)", "int(1,2)", "float(1)", "json_str({a:1})"),
    *("auto", "cpu", "cuda", "cuda:7", "cuda:" + "9" * 20, "cpu:5", "meta", "full", "skip"),
    *("a b", "a=b", "'a\nb'", '"a\tb"', "ünïcödé😀", "'\udcff'", "'\0'", "'\x1b[31m'", "'\u2028'"),
    *("{", "}", "[", "]", "'", '"', "\\", "#", "@", ":", "!!python/object:os.system", "../../x"),
]
TARGETS = [
    *("nasrun.sampler.uniform.Uniform", "nasrun.dataset.digits.Digits", "nasrun.streams.Streams"),
    *("nasrun.search_algo.nao.Nao", "nasrun.trainer.trainer.Trainer", "nasrun.run.run.Run"),
    *("nasrun.task.setup.Setup", "nasrun.errors.Interrupted", "nasrun.run.lock.Lock"),
    *("nasrun.search_space.nao_cell.CellScale", "nasrun.sampler.base.Sampler", "nasrun.nope.X"),
    *(
        "torch.optim.SGD",
        "torch.nn.Linear",
        "os.system",
        "nasrun.cli.main.main",
        "nasrun",
        "nasrun.",
    ),
]
KEYS = [
    *("a..b", ".", "a@b", "a@b:c", "a/b", "/a", "ä", "1", "$x", "a[0]", "seed.x", "dataset.mean.0"),
    *("_target_", "defaults", "effort", "null", "a b", "x" * 3000, "trainer.schedule.lr.x", "nope"),
    *("sampler@trainer", "trainer@nope", "dataset@", "effort/smoke/dataset@dataset"),
]
HYDRA = [
    *("hydra.run.dir=here", "hydra.run.dir=${seed}", "hydra.run.dir=null", "hydra.run.dir=[1]"),
    *("hydra.run.dir=", "hydra.run.dir=${nope}", "hydra.run.dir='a\nb'", "hydra.run.dir='\0'"),
    *("hydra.mode=x", "hydra.verbose=3", "hydra.job.chdir=true", "hydra.job.num=x", "hydra=x"),
    *("hydra/launcher=nope", "hydra/job_logging=nope", "hydra.nope=1", "~hydra.callbacks"),
    *("~hydra", "hydra.searchpath=x", "hydra.callbacks.outputs._target_=nope.X"),
]


def options_of(task: str) -> dict[str, list[str]]:
    """The groups that a command line of ``task`` may choose from, each with its options."""
    chosen = dict(defaults())
    for entry in read(conf_dir() / "task" / f"{task}.yaml").get("defaults", []):
        chosen |= {key.lstrip("/"): "" for key in entry} if isinstance(entry, dict) else {}
    known, left_out = groups(), ("task", "effort", "experiment")
    return {
        key: known[key.partition("@")[0]]
        for key in chosen
        if key not in left_out and not key.startswith(("optional", "override"))
    }


@cache
def lines() -> list[tuple[str, ...]]:
    """Valid command lines, in which each option of each group comes up."""
    found: list[tuple[str, ...]] = [("search",)]
    for task in tasks():
        chosen = {k: o for k, o in options_of(task).items() if task != "retrain" or k == "dataset"}
        for turn in range(max(map(len, chosen.values()))):
            words = [f"{key}={options[turn % len(options)]}" for key, options in chosen.items()]
            found.append((task, *NEEDED.get(task, ()), *words))
    found += [(task_of_recipe(name), f"experiment={name}") for name in groups()["experiment"]]
    return found


@cache
def leaves(line: tuple[str, ...]) -> dict[str, Any]:
    return flatten(compose([*line[1:], f"task={line[0]}"]))


def near(default: Any) -> st.SearchStrategy[str]:
    """Values of the right type, some of them a little out of range."""
    if isinstance(default, bool) or default is None:
        return st.sampled_from(["true", "false", "null", "1"])
    if isinstance(default, int):
        return st.integers(-3, 2 * default + 5).map(str)
    if isinstance(default, float):
        return st.floats(min(0, default) - 1, 2 * default + 2).map(repr)
    return st.just(str(default))


def slip(word: str) -> st.SearchStrategy[str]:
    """The word without one of its letters."""
    return st.integers(0, max(len(word) - 1, 0)).map(lambda i: word[:i] + word[i + 1 :])


@st.composite
def override(draw: st.DrawFn, line: tuple[str, ...]) -> str:
    known, own = groups(), leaves(line)
    kind = draw(st.sampled_from(["leaf"] * 14 + ["group"] * 3 + ["target", "target", *"pskh"]))
    prefix = draw(st.sampled_from([""] * 20 + ["+", "++", "~"]))
    key = draw(st.sampled_from(sorted(own)))
    strange = st.one_of(
        st.sampled_from(WORDS), st.sampled_from(WORDS), st.text(max_size=8).map(quote)
    )
    value = st.one_of(*[near(own[key])] * 8, strange, st.just(f"${{{key}}}"))
    if kind == "group":
        key = draw(st.sampled_from([*options_of(line[0]), *known]))
        options = st.sampled_from(known[key.partition("@")[0]])
        value = st.one_of(options, options.flatmap(slip), st.sampled_from([*WORDS, "../x", "/x"]))
    elif kind == "target":
        key = draw(st.sampled_from([key for key in own if key.endswith("_target_")]))
        inside = ["_target_"] * 4 + ["_args_", "_partial_", "_convert_", "__class__", "self"]
        key = f"{key.removesuffix('_target_')}{draw(st.sampled_from(inside))}"
        value = st.sampled_from([*TARGETS, *TARGETS, *WORDS])
    elif kind == "p":
        key = key.rpartition(".")[0] or key
    elif kind == "s":
        key = draw(slip(key))
    elif kind == "k":
        key = draw(st.one_of(st.sampled_from(KEYS), st.text(max_size=6)))
    elif kind == "h":
        return draw(st.sampled_from(HYDRA))
    if prefix == "~" and draw(st.booleans()):
        return f"~{key}"
    text = draw(value)
    if key == "outputs":  # nothing outside the test's folder is written
        text = text.replace("/", "").replace("..", "").replace("${oc.env:HOME}", "")
    return f"{prefix}{key}={text}"


@st.composite
def any_line(draw: st.DrawFn) -> list[str]:
    line = draw(st.sampled_from(lines()))
    words = draw(st.lists(override(line), min_size=1, max_size=4))
    smoke = draw(st.sampled_from([(), ("effort=smoke",)]))
    return [*line, *smoke, *(word for word in words if not word.startswith("-"))]  # no switches


SIZES = {
    "epochs": (1, 2),
    "batch_size": (8, 2, 3, 16),
    "layers": (1,),
    "channels": (2, 1, 4, 8),
    "nodes": (2, 1, 3),
    "rounds": (2, 1, 3),
    "initial": (3, 1, 2, 5),
    "new_per_round": (2, 1, 4),
    "evaluations": (3, 1),
    "train_images": (24, 33),
    "test_images": (10, 1),
    "validation": (10, 0.3),
}
"""By the last part of the key: what makes a run one of a second, and is always given."""

SETTINGS = {
    "batch_size": ("full", "auto", 3, 2),
    "seed": (1, "1" + "0" * 30),
    "resume": ("auto",),
    "shortlist.count": (0, 1, 3),
    "checkpoint.steps": (1, 5),
    "checkpoint.minutes": ("null",),
    ".batch": (1, 2, 5),
    ".seeds": (1, 9),
    ".images": (1, 8),
    ".recalibration_images": (1, 8),
    ".classes": (1, 2, 3),
    ".image_size": (8, 9, 12),
    ".crop_padding": (0, 3),
    ".cutout": (3,),
    ".expand": (1, 3),
    ".tokens_per_step": (1, 2, 3),
    ".validation_share": (0, 0.5, 0.99),
    ".hidden": (1, 4),
    ".embedding": (1,),
    ".mlp_layers": (2,),
    ".decay": (0.5,),
    ".step_max": (1, 3),
    ".exponent": (0, 8, -1),
    ".random": (0, 1),
    ".bins": (1, 3),
    ".momentum": (0.5,),
    ".dropout_keep": (0.5,),
    ".drop_path_keep": (0.5,),
    ".clip": (0,),
    ".clip_value": (0.5,),
    ".label_smoothing": (0.1,),
    ".cycle_epochs": (0.3, 1),
    ".warmup_epochs": (0.5, 3),
    ".log_every": (1, 3),
    ".lr": (1e-6, 1e6),
}
"""By the whole key, or its last part: what may be given besides; other settings by their types."""


def options_of_type(hint: Any) -> list[str]:
    """What a setting of this type may be, where the type tells: a choice, or true and false."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is bool:
        return ["true", "false"]
    if origin is Literal:
        return [str(option) for option in inner]
    if origin is Annotated or origin in (Union, UnionType):
        return [option for part in inner for option in options_of_type(part)]
    return []


def type_of(key: str, config: dict[str, Any]) -> Any:
    """The type hint of a setting: that of the argument of the class that takes it."""
    owner, node = Setup, config
    for name in key.split("."):
        values = issubclass(owner, BaseModel) or owner is Setup
        hint = get_type_hints(owner if values else owner.__init__, include_extras=True).get(name)
        node = node[name]
        if not isinstance(node, dict):
            return hint
        owner = find_class(node["_target_"], key) if "_target_" in node else hint
        if not isinstance(owner, type):
            return None
    return None


def small_run(rng: np.random.Generator) -> list[str]:
    """A search that takes seconds, of any kind that there is; some do not go together."""

    def one(key: str, options: Sequence[Any]) -> str:
        return f"{key}={options[rng.integers(len(options))]}"

    chosen = {**options_of("search"), "dataset": ["digits", "synthetic"]}
    while True:  # many algorithms and samplers want a space of one kind
        words = [one(key, options) for key, options in chosen.items()]
        if "path_rules=dynas" in words:
            words.append("trainer.schedule.kind=polynomial")
        config = compose([*words, "effort=smoke", "task=search"])
        with suppress(UserError):
            setup = build_setup(config)
            setup.check_algo()
            break
    if setup.search_algo.learns_gates:  # then no sampler may be named
        words = [word for word in words if not word.startswith("sampler=")]
        config.pop("sampler")
    others = []
    for key in flatten(config):
        name = key.rpartition(".")[2]
        if "." in key and name in SIZES:
            words.append(one(key, SIZES[name]))
        else:
            values = SETTINGS.get(key) or SETTINGS.get(f".{name}") or ()
            options = options_of_type(type_of(key, config)) or values
            others += [one(key, options)] if options else []
    return ["search", "effort=smoke", "threads=1", *words, *map(str, rng.permutation(others)[:6])]
