"""The command line: from typed words to a task that runs, and to an exit status.

Exit status: 0: done. 1: an internal error, or a sweep in which a job failed. 2: a mistake that the
user can correct, reported in one line. 130, 143: interrupted by Ctrl-C, by SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun import __version__
from nasrun.building.allowed import read_trust
from nasrun.cli import arguments, by_ranks, commands, outputs
from nasrun.cli.arguments import CommandLine
from nasrun.cli.errors import interrupted, show_traceback, verdict
from nasrun.config.groups import conf_dir, tasks
from nasrun.config.yaml_files import read
from nasrun.errors import Interrupted, Mistakes, UserError, is_panic, nearest, shortened
from nasrun.run import ranks, signals
from nasrun.run.layout import RECORD

if TYPE_CHECKING:
    from omegaconf import DictConfig

SIGPIPE = 13
"""Number of the signal of a broken pipe, which Windows lacks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (None: the process's own); returns the exit status."""
    line: CommandLine | None = None
    failed = True
    read_trust()
    try:
        with signals.noted(), ExitStack() as inside:
            if ranks.place().rank:
                inside.enter_context(ranks.silent())
            line = arguments.split(sys.argv[1:] if argv is None else argv, commands.switches)
            status = command(line)() if by_ranks.take_part(line) else 0
        sys.stdout.flush()
        failed = False
        return status
    except (Interrupted, KeyboardInterrupt) as error:
        show_traceback()
        return interrupted(error)
    except BrokenPipeError:
        # The reader of our output has ended (`| head`), so no message can be shown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + SIGPIPE
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        show_traceback()
        message, status = verdict(error, line.value(arguments.CONFIG_DIR) if line else None)
        if (voice := ranks.voice(error)) is not None:
            sys.stderr.write(f"nasrun: {voice}{message}\n")
        return status
    finally:
        ranks.leave(failed=failed)


def command(line: CommandLine) -> Callable[[], int]:
    """Return the function that carries the line out and returns the exit status."""
    if line.has(("--version",)):
        return show_version
    known = [*tasks(), *commands.names()]
    words = f"tasks: {', '.join(tasks())}; commands: {', '.join(commands.names())}"
    if line.task not in (None, *known):
        near = nearest(str(line.task), known)
        raise UserError(f"unknown task {shortened(repr(line.task))}{near}; {words}")
    empty = line.task is None and not line.overrides and not line.switches
    if line.has(arguments.HELP) or empty:
        return partial(commands.find("help").run, line)
    if line.task is None and not line.has(arguments.WITHOUT_TASK):
        raise UserError(f"no task given: nasrun TASK ...; {words}")
    if line.task in commands.names():
        return partial(commands.find(line.task).run, line)
    return partial(hydra_main, line)


def show_version() -> int:
    """Print the version."""
    sys.stdout.write(f"nasrun {__version__}\n")
    return 0


def hydra_main(line: CommandLine, *, ready: bool = False) -> int:
    """Have Hydra compose the configuration and call ``job``, once or for each job of a sweep.

    ready: whether the overrides are checked and complete.
    """
    from hydra import main as hydra_decorator

    from nasrun.cli.configuration import commented
    from nasrun.config.compose import VERSION_BASE, without_null
    from nasrun.config.efforts import register_efforts
    from nasrun.config.explain import CONFIGURATION_ERRORS, explain_all
    from nasrun.config.guard import guard_files

    guard_files()
    given = line.overrides if ready else ready_overrides(line)
    overrides = [without_null(override) for override in given]
    overrides += place_of_auto(line, overrides)
    overrides += by_ranks.common_place(overrides)
    failures: list[BaseException] = []
    known, config_dir = outputs.current, line.value(arguments.CONFIG_DIR)
    register_efforts(overrides, config_dir)

    def task_function(composed: DictConfig) -> float | None:
        # Hydra would print an error in its own way, so errors are kept and reported at the end.
        outputs.current[:] = known  # a launcher may call this in another process, with copies
        ran = False
        try:
            with signals.noted_in_job(), job(composed) as go:
                ran = True
                go()
            return objective(composed)
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            failures.append(error)
            if outputs.current and outputs.current[0].sweep:
                report_failed_job(error, place_of_failure(composed), config_dir, ran=ran)
            return None

    alone = line.task is None or line.has(arguments.WITHOUT_TASK)
    task = [] if alone else [f"task={line.task}"]
    decorate = hydra_decorator(
        version_base=VERSION_BASE, config_path=str(conf_dir()), config_name="config"
    )
    outputs.current.clear()
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # The task comes last: Hydra's parser takes no switch after the first override.
    sys.argv = ["nasrun", *line.switches, *overrides, *task]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    try:
        with commented(line, overrides):
            decorate(task_function)()
    except CONFIGURATION_ERRORS as error:
        sweep = (
            outputs.current[0].directory if outputs.current and outputs.current[0].sweep else None
        )
        if sweep and (status := status_without_numbers(sweep)) is not None:
            return status
        raise explain_all(
            error, overrides + task, config_dir, several=line.has(arguments.MULTIRUN)
        ) from error
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]
        if outputs.current:
            outputs.current[0].remove_if_empty()
    if outputs.current and outputs.current[0].sweep:
        sweep = outputs.current[0].directory
        return status_of_sweep(sweep) or int(bool(failures))
    if failures:
        raise failures[0]
    return 0


def status_of_sweep(sweep: Path) -> int:
    """Return the exit status of the jobs that the command line was about."""
    from nasrun.report.run_files import of_last_line, read_jobs
    from nasrun.report.sweep import exit_status  # numpy and rich: only for sweeps

    return exit_status(of_last_line(read_jobs(sweep), sweep))


def status_without_numbers(sweep: Path) -> int | None:
    """Summarise a sweep whose sweeper has got no number, as all jobs failed; None: some did not."""
    from nasrun.report.run_files import of_last_line, read_jobs
    from nasrun.report.sweep import exit_status, summarise

    jobs = of_last_line(read_jobs(sweep), sweep)
    if not jobs or not all(found.error for found in jobs):
        return None
    summarise(sweep)
    return exit_status(jobs)


def ready_overrides(line: CommandLine) -> list[str]:
    """Return checked overrides for Hydra, those of ``from=RUN_DIR`` before the user's."""
    from nasrun.config.compose import parse, quote
    from nasrun.config.paths import readable

    if line.has(arguments.WITHOUT_TASK):
        return list(line.overrides)
    several = line.has(arguments.MULTIRUN)
    config_dir = line.value(arguments.CONFIG_DIR)
    # Of a task that takes no run, Hydra says that there is no such setting.
    takes_run = "from" in read(conf_dir() / "task" / f"{line.task}.yaml")
    given: dict[str, str] = {}
    overrides, mistakes = [], Mistakes()
    for override in line.overrides:
        with mistakes:
            key, equals, value = override.partition("=")
            if key == "task":
                raise UserError("the task is a word of its own: nasrun TASK, not task=TASK")
            override = readable(override, several=several)
            parsed = parse(override)
            if takes_run and override == "from=":
                raise UserError("from= is empty: name a run, or leave it out")
            if takes_run and key == "from" and equals and value not in ("", "null"):
                override = "from="
            if key in ("from", "outputs", "resume") and not parsed.is_sweep_override():
                given[key] = str(parsed.value())
            overrides.append(override)
    if mistakes.errors:
        from nasrun.config.explain import complaints

        rest = [word for word in overrides if not word.startswith("from=")]
        mistakes.errors += complaints([*rest, f"task={line.task}"], config_dir, several=several)
        mistakes.report()
    if any(word.startswith("architecture=") for word in overrides):
        from nasrun.cli.given import with_given

        overrides = with_given(overrides, config_dir)
    if "from=" not in overrides:
        return overrides
    from nasrun.cli.from_run import earlier_run, with_earlier
    from nasrun.task.base import find_task

    directory = earlier_run(str(line.task), given)
    overrides = [f"from={quote(str(directory))}" if o == "from=" else o for o in overrides]
    return with_earlier(directory, find_task(str(line.task)), overrides, config_dir)


def place_of_auto(line: CommandLine, overrides: list[str]) -> list[str]:
    """Return the override of the directory with ``resume=auto``: equal lines, equal directories."""
    several = line.has(arguments.MULTIRUN)
    key = "hydra.sweep.dir" if several else "hydra.run.dir"
    if "resume=auto" not in overrides or any(word.startswith(f"{key}=") for word in overrides):
        return []
    from nasrun.cli.resume import run_name

    name = run_name(str(line.task), overrides, line.value(arguments.CONFIG_DIR), sweep=several)
    return [f"{key}=${{outputs}}/${{task}}/{'multirun_' if several else ''}{name}"]


@contextmanager
def job(composed: DictConfig) -> Iterator[Callable[[], object]]:
    """Yield the function that does one run: a new one, or the rest of the one in the directory."""

    from nasrun.cli import resume, sweep_job
    from nasrun.cli.launch import fitted, launched
    from nasrun.config.compose import plain
    from nasrun.run.commands import command as shown
    from nasrun.run.lock import Lock

    if job_name():
        sys.stdout.write(f"{job_name()}\n")
        sys.stdout.flush()
    settings = fitted(plain(composed), own_overrides(), own_config_dir())
    if settings.get("resume") not in ("never", "auto"):
        raise UserError(f"resume={settings.get('resume')}: must be never or auto")
    sweep_job.check_objective(settings)
    directory = Path(ranks.current.agree(str(job_directory(composed))))
    if job_name() and directory.is_symlink():
        raise UserError(f"{directory} is refused: it is a link, and a sweep has none of its own")
    with Lock(directory) as lock:
        resume.tell_of_stale(lock)
        if not (directory / RECORD).exists():
            with launched(settings, directory, own_overrides()) as go:
                yield go
        elif settings["resume"] == "auto":
            changes = resume.differences(settings, directory)
            with resume.continued(directory, changes, own_overrides(), trusted=True) as go:
                yield go
        else:
            raise UserError(
                f"{directory} holds a run already: go on with it "
                f"({shown('resume', directory)}), or choose another place"
            )
    if job_name() and signals.stop.signal is not None:
        raise Interrupted(signals.stop.signal)  # the signal came while a job was ending


def job_directory(composed: DictConfig) -> Path:
    """Return the directory of this run, or of this job of a sweep."""
    from nasrun.cli import sweep_job

    return sweep_job.directory(own_overrides(), again=composed.get("resume") == "auto")


def place_of_failure(composed: DictConfig) -> Path:
    """Return the directory of a job that has failed, perhaps as it chose its directory."""
    from hydra.core.hydra_config import HydraConfig

    try:
        return job_directory(composed)
    except (UserError, OSError):
        return Path(HydraConfig.get().runtime.output_dir)


def objective(composed: DictConfig) -> float | None:
    """Return the number of a job that has ended, for a sweeper that optimises; else None."""
    from nasrun.cli import sweep_job
    from nasrun.config.compose import plain

    if not sweep_job.optimises():
        return None
    return sweep_job.objective(plain(composed), job_directory(composed))


def own_overrides() -> list[str]:
    """Return the overrides of this job, without the task."""
    from hydra.core.hydra_config import HydraConfig

    return [word for word in HydraConfig.get().overrides.task if not word.startswith("task=")]


def own_config_dir() -> str | None:
    """Return the user's folder of options, if the command line names one."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return next((source.path for source in sources if source.provider == "command-line"), None)


def job_name() -> str:
    """Name a job: ``[2/6] sampler=uniform seed=1`` within a sweep, else an empty string."""
    from hydra.core.hydra_config import HydraConfig

    if not (outputs.current and outputs.current[0].sweep):
        return ""
    output, number = outputs.current[0], HydraConfig.get().job.num + 1
    swept = [word for word in own_overrides() if word.partition("=")[0] in output.swept]
    of = f"/{output.jobs}" if output.jobs else ""
    return f"[{number}{of}] {' '.join(swept or own_overrides())}".rstrip()


def report_failed_job(
    error: BaseException, directory: Path, config_dir: str | None, *, ran: bool
) -> None:
    """Show the error and write it down for the summary; the sweep goes on.

    directory: of the job.
    ran: whether the task had begun to run; if not, the job was refused.
    """
    from hydra.core.hydra_config import HydraConfig

    from nasrun.cli.failed_job import record_failure

    show_traceback()
    message, status = verdict(error, config_dir)
    message = message.replace("mistakes:\n  ", "mistakes: ").replace("\n  ", "; ")
    sys.stderr.write(f"nasrun: {job_name()}: {message}\n")
    result = {
        "status": "failed",
        "error": message.removeprefix("error: "),
        "kind": "user" if status == 2 else "internal",
        "overrides": own_overrides(),
    }
    config = HydraConfig.get()
    number = int(directory.name) if directory.name.isdecimal() else config.job.num
    record_failure(directory, Path(config.sweep.dir), number, result, ran=ran)
