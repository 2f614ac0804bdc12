"""Sweeps beyond Hydra's own launcher and sweeper, and sweeps that are repeated with more jobs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from helpers import as_job
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.errors import MissingConfigException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from processes import TINY, outcome
from resuming import FOUND

from nasrun.cli import main as cli
from nasrun.cli import sweep_job
from nasrun.config.explain import PLUGINS as KNOWN
from nasrun.config.explain import explain
from nasrun.errors import Interrupted
from nasrun.report import sweep
from nasrun.run import signals

ROOT = Path(__file__).parents[1]

PLUGINS = find_spec("hydra_plugins") is not None
"""Whether any plugin of Hydra is installed."""

IN_ANOTHER_PROCESS = """
import pickle, sys
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from omegaconf import open_dict

with open(sys.argv[1], "rb") as file:
    state, context, master, task_function, jobs = pickle.load(file)
found = []
for number, overrides in jobs:
    setup_globals()
    Singleton.set_state(state)
    config = context.config_loader.load_sweep_config(master, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    HydraConfig.instance().set_config(config)
    found.append(run_job(
        hydra_context=context, config=config, task_function=task_function,
        job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
    ))
with open(sys.argv[1], "wb") as file:
    pickle.dump([(each.status, each.return_value) for each in found], file)
"""


class OtherProcess(Launcher):
    """A launcher that runs the jobs of a batch in a process of their own, as joblib's does."""

    __module__ = "hydra_plugins.of_tests"  # Hydra takes plugins from there only

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        jobs = [(initial_job_idx + i, list(words)) for i, words in enumerate(job_overrides)]
        order = Path("order.pickle").absolute()
        parts = (Singleton.get_state(), self.context, self.config, self.task_function, jobs)
        order.write_bytes(cloudpickle.dumps(parts))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(order)]
        subprocess.run(command, check=True, env=environment)
        answers = pickle.loads(order.read_bytes())  # noqa: S301
        order.unlink()
        return [JobReturn(status=status, _return_value=value) for status, value in answers]


class Optimiser(Sweeper):
    """A sweeper that tries the values of ``seeds`` and remembers the numbers that it gets."""

    __module__ = "hydra_plugins.of_tests"

    told: list[Any] = []  # noqa: RUF012
    directions: list[str] = []  # noqa: RUF012

    def __init__(self, direction: str, seeds: list[int]) -> None:
        self.seeds = list(seeds)
        self.directions.append(direction)

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        for number, seed in enumerate(self.seeds):
            (done,) = self.launcher.launch([[*arguments, f"seed={seed}"]], number)
            self.told.append(done.return_value)


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both, in a module as Hydra wants it, which is sent to the other process along with them."""
    module = ModuleType("hydra_plugins.of_tests")
    parent = import_module("hydra_plugins") if PLUGINS else ModuleType("hydra_plugins")
    if not PLUGINS:
        parent.__path__ = []
    monkeypatch.setattr(parent, "of_tests", module, raising=False)
    monkeypatch.setitem(sys.modules, "hydra_plugins", parent)
    monkeypatch.setitem(sys.modules, "hydra_plugins.of_tests", module)
    store = ConfigStore.instance()
    for kind, name, cls, settings in (
        ("launcher", "other_process", OtherProcess, {}),
        ("sweeper", "optimiser", Optimiser, {"direction": "minimize", "seeds": [3, 4]}),
    ):
        setattr(module, cls.__name__, cls)
        Plugins.instance().register(cls)
        node = {"_target_": f"{cls.__module__}.{cls.__name__}", **settings}
        store.store(group=f"hydra/{kind}", name=name, node=OmegaConf.create(node))
    Optimiser.told.clear()
    Optimiser.directions.clear()
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(plugin: str) -> pytest.MarkDecorator:
    absent = not PLUGINS or find_spec(f"hydra_plugins.{plugin}") is None
    extra = "ray" if "ray" in plugin else "sweeps"
    return pytest.mark.skipif(absent, reason=f"pip install nasrun[{extra}]")


@pytest.mark.soak
@pytest.mark.parametrize(
    "launcher",
    [
        "other_process",
        pytest.param("joblib", marks=needs("hydra_joblib_launcher")),
        pytest.param("submitit_local", marks=needs("hydra_submitit_launcher")),
        pytest.param("ray", marks=needs("hydra_ray_launcher")),
    ],
)
def test_the_reason_of_a_failure_in_another_process_is_kept(
    folder: Path,
    launcher: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else other work keeps the cores from its jobs
    words = ["resume=maybe,perhaps", "hydra.sweep.dir=s", f"hydra/launcher={launcher}"]
    words += ["+hydra.launcher.ray.init.num_cpus=2"] if launcher == "ray" else []
    assert cli.main(["search", "-m", "effort=smoke", *words]) == 2
    shown = capfd.readouterr()
    for number, word in enumerate(("maybe", "perhaps")):
        result = json.loads((folder / "s" / str(number) / "result.json").read_text())
        assert result["error"] == f"resume={word}: must be never or auto"
        assert result["overrides"] == ["effort=smoke", f"resume={word}"]
        line = f"  {number}/ (effort=smoke resume={word}): resume={word}: must be never or auto"
        assert line in shown.out
        if launcher == "other_process":
            assert f"nasrun: [{number + 1}/2] resume={word}: error: resume={word}" in shown.err
    assert "all 2 jobs failed" in shown.out


@pytest.mark.parametrize("group", KNOWN)
def test_what_is_not_installed_is_named(group: str) -> None:
    for option, (package, extra) in KNOWN[group].items():
        error = MissingConfigException("Could not find it", f"{group}/{option}")
        told = f"{group}={option} needs the package {package}, which is not installed: "
        assert str(explain(error, [], None)) == f"{told}pip install 'nasrun[{extra}]'"
    error = MissingConfigException("Could not find it", f"{group}/basik")
    assert "there is none of that name (did you mean 'basic'?)" in str(explain(error, [], None))


def test_every_launcher_that_is_told_is_in_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in (pair for options in KNOWN.values() for pair in options.values()):
        assert any(package in line for line in project["optional-dependencies"][extra])


@pytest.mark.soak
@pytest.mark.parametrize("launcher", list(KNOWN["hydra/launcher"]))
def test_a_launcher_that_is_absent_is_one_line(
    folder: Path, launcher: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = KNOWN["hydra/launcher"][launcher][0]
    if find_spec("hydra_plugins") and find_spec(f"hydra_plugins.{package.replace('-', '_')}"):
        pytest.skip(f"{package} is installed")
    assert cli.main(["search", "-m", f"hydra/launcher={launcher}", "seed=0,1"]) == 2
    told = capfd.readouterr().err
    assert f"needs the package {package}, which is not installed: pip install" in told
    assert told.count("\n") == 1 and not list(folder.iterdir())


# Jobs that are queued again.


@pytest.mark.parametrize("number", signals.REQUEUE)
def test_a_launcher_queues_its_job_again_after_the_checkpoint(number: int) -> None:
    heard: list[int] = []
    before = {n: signal.getsignal(n) for n in (number, signal.SIGTERM)}
    try:
        signal.signal(number, lambda n, frame: heard.append(n))
        signal.signal(signal.SIGTERM, lambda n, frame: heard.append(n))
        with pytest.raises(Interrupted) as raised, signals.noted_in_job():
            signals.stop.deferred = True  # as in a step
            os.kill(os.getpid(), number)
            assert signals.stop.signal == number and not heard
            os.kill(os.getpid(), signal.SIGTERM)  # which this launcher wants to pass over
            assert heard == [signal.SIGTERM]
            raise Interrupted(number, "saved")  # as at the next safe point
        assert raised.value.signal == number and heard == [signal.SIGTERM, number]
        os.kill(os.getpid(), number)
        assert heard == [signal.SIGTERM, number, number]
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_in_the_process_of_the_command_line_nothing_is_taken_over() -> None:
    with signals.noted(), signals.noted_in_job():
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        signals.stop.signal = signal.SIGTERM
    assert signals.stop.signal == signal.SIGTERM
    signals.stop.signal = None


@pytest.mark.soak
@needs("hydra_submitit_launcher")
def test_a_job_that_is_queued_again_goes_on(folder: Path, undisturbed: Path) -> None:
    """submitit's local executor queues as Slurm does: SIGUSR2, and the same job once more."""
    words = [*TINY, "hydra.sweep.dir=s", "seed=0", "hydra/launcher=submitit_local", "resume=auto"]
    sweep = subprocess.Popen([sys.executable, "-m", "nasrun", "search", "-m", *words])
    log = folder / "s" / "0" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):  # it has trained a step
        assert sweep.poll() is None
        time.sleep(0.01)
    # To the process of the job, as Slurm does: submitit's own, which starts it, would die of it.
    os.kill(json.loads((log.parent / "lock").read_text())["pid"], signal.SIGUSR2)
    assert sweep.wait() == 0
    run = folder / "s" / "0"
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    assert FOUND in (run / "log.txt").read_text()
    assert outcome(run) == outcome(undisturbed)


# Numbers for sweepers that optimise.


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Jobs that end at once; holds their directories."""
    places: list[Path] = []

    def job(composed: Any) -> None:
        place = cli.job_directory(composed)
        if (place / "run.json").exists():
            return
        places.append(place)
        record = {"task": "search", "overrides": cli.own_overrides()}
        (place / "run.json").write_text(json.dumps(record))
        result = {
            "status": "done",
            "score": 10 + composed.seed,
            "shortlist_accuracy": 20 + composed.seed,
            "validation_accuracy": 30 + composed.seed,
            "test_accuracy": 40 + composed.seed,
        }
        (place / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(cli, "job", as_job(job))
    return places


OPTIMISE = ["search", "-m", "hydra/sweeper=optimiser", "hydra.sweep.dir=s"]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [33, 34]),
        (["retrain.images=train+validation", "shortlist.count=2"], [23, 24]),
        (["retrain.images=train+validation", "shortlist.count=0"], [13, 14]),
    ],
)
def test_a_sweeper_gets_what_validation_images_say(
    folder: Path, ended: list[Path], words: list[str], numbers: list[int]
) -> None:
    assert cli.main([*OPTIMISE, *words]) == 0
    assert Optimiser.told == numbers
    assert Optimiser.directions == ["maximize"]
    assert len(ended) == 2


@pytest.mark.soak
def test_a_number_is_returned_from_a_job_that_was_finished(folder: Path, ended: list[Path]) -> None:
    for _ in range(2):
        assert cli.main([*OPTIMISE, "resume=auto"]) == 0
    assert Optimiser.told == [33, 34, 33, 34]
    assert len(ended) == 2


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["compare", *OPTIMISE[1:]], "nasrun compare has no number for a sweeper to optimise"),
        (
            ["retrain", *OPTIMISE[1:], "retrain.images=train+validation", "architecture=x"],
            "nasrun retrain has no number for a sweeper to optimise; it has one with",
        ),
        (
            [*OPTIMISE, "hydra.sweeper.direction=minimize"],
            "hydra.sweeper.direction=minimize: the sweeper gets one number, and more of it",
        ),
    ],
)
def test_a_job_without_a_number_is_refused(
    folder: Path, words: list[str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    shown = capfd.readouterr()
    assert reason in shown.out
    assert shown.err.count(reason) == 2
    assert Optimiser.told == [None, None]


@pytest.mark.soak
@needs("hydra_optuna_sweeper")
def test_optuna_finds_the_best(folder: Path, ended: list[Path]) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=s"]
    assert (
        cli.main(["search", "-m", *words, "hydra/sweeper/sampler=grid", "seed=choice(1,5,3)"]) == 0
    )
    best = OmegaConf.load(folder / "s" / "optimization_results.yaml")
    assert best.best_value == 35
    assert best.best_params == {"seed": 5}


# A sweep that is repeated with more.


def seeds_of(directory: Path) -> dict[str, str]:
    return {
        job.directory.name: next(word for word in job.overrides if word.startswith("seed="))
        for job in sweep.read_jobs(directory)
    }


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.soak
def test_a_repeated_sweep_runs_only_what_is_missing(folder: Path, ended: list[Path]) -> None:
    """Jobs are recognised by their overrides, although their numbers have shifted."""
    line = ["search", "-m", "effort=smoke", "hydra.sweep.dir=s", "resume=auto"]
    assert cli.main([*line, "seed=0,1"]) == 0
    before = {name: contents(folder / "s" / name) for name in ("0", "1")}
    del ended[:]
    assert cli.main([*line, "seed=7,1,0"]) == 0
    assert ended == [folder / "s" / "2"]
    assert seeds_of(folder / "s") == {"0": "seed=0", "1": "seed=1", "2": "seed=7"}
    assert {name: contents(folder / "s" / name) for name in ("0", "1")} == before
    # Neither the machine nor the order of the words makes another job.
    assert cli.main(["search", "-m", "seed=8,7", "threads=1", *line[2:]]) == 0
    assert ended[1:] == [folder / "s" / "3"]


@pytest.mark.soak
def test_with_one_seed_more_it_is_the_same_sweep(folder: Path, ended: list[Path]) -> None:
    for seeds in ("0", "range(2)"):
        assert cli.main(["search", "-m", "resume=auto", f"seed={seeds}"]) == 0
    (directory,) = (folder / "outputs" / "search").iterdir()
    assert [place.name for place in ended] == ["0", "1"]
    assert cli.main(["search", "-m", "resume=auto", "seed=0", "sampler=uniform"]) == 0
    assert len(list(directory.parent.iterdir())) == 2


def test_each_job_is_read_once_and_finds_a_free_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three jobs has been removed: the third number is no free one."""
    read: list[str] = []
    whole = sweep_job.job_files
    monkeypatch.setattr(sweep_job, "job_files", lambda path: read.append(path.name) or whole(path))
    for number in (0, 2):
        (folder / str(number)).mkdir()
        (folder / str(number) / "job.json").write_text(f'{{"overrides": ["seed={number}"]}}')
    for seed, place in ((7, "3"), (0, "0"), (8, "4"), (2, "2")):
        chosen = sweep_job._chosen(folder / "2", [f"seed={seed}"])
        assert chosen == folder / place
        if not chosen.exists():
            chosen.mkdir()
            (chosen / "job.json").write_text(f'{{"overrides": ["seed={seed}"]}}')
    assert read == ["0", "2", "3", "0", "4", "2"]  # once, and where it is found
    (folder / "0" / "job.json").unlink()
    (folder / "0").rmdir()
    assert sweep_job._chosen(folder / "0", ["seed=0"]) == folder / "0"


def test_without_resume_a_job_keeps_its_number(folder: Path, ended: list[Path]) -> None:
    assert cli.main(["search", "-m", "seed=0,0", "hydra.sweep.dir=s"]) == 0
    assert ended == [folder / "s" / "0", folder / "s" / "1"]


def test_a_killed_job_is_known_by_its_overrides(folder: Path) -> None:
    (folder / "0").mkdir()
    (folder / "0" / "job.json").write_text('{"overrides": ["seed=3"]}')
    (job,) = sweep.read_jobs(folder)
    assert job.overrides == ("seed=3",)
    assert job.error == "it has left no result.json"


@pytest.mark.few(1)
@pytest.mark.parametrize("content", ["", "[1]", '{"overrides": 3}', '{"overrides": ["=", "${x}"]}'])
def test_a_damaged_record_is_no_match(folder: Path, ended: list[Path], content: str) -> None:
    (folder / "s" / "0").mkdir(parents=True)
    (folder / "s" / "0" / "job.json").write_text(content)
    assert cli.main(["search", "-m", "seed=0", "hydra.sweep.dir=s", "resume=auto"]) in (0, 1)
    assert ended == [folder / "s" / "1"]
