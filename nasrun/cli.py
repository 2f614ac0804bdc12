"""The command line: from the words that were typed to a task that runs, and to an exit status.

0: done. 1: an internal error, or a sweep in which a job failed. 2: something that the user can
mend, said in one line. 130, 143: interrupted by Ctrl-C, by SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun import __version__, switches
from nasrun.build import nearest, shortened
from nasrun.errors import Interrupted, UserError
from nasrun.options import conf_dir, tasks
from nasrun.run import signals
from nasrun.run.files import printable
from nasrun.switches import CommandLine

if TYPE_CHECKING:
    from omegaconf import DictConfig

DEBUG = "NASRUN_DEBUG"
RESUME = "resume"
SUPERNET = "supernet.safetensors"
TAKEN_FROM = {"search": SUPERNET, "retrain": "architecture.json", "rank": SUPERNET}
"""What a task takes from=RUN_DIR, besides its overrides."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (None: the process's own); returns the exit status."""
    try:
        with signals.noted():
            status = command(switches.split(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except (Interrupted, KeyboardInterrupt) as error:
        _debug()
        return interrupted(error)
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        _debug()
        message, status = verdict(error)
        sys.stderr.write(f"nasrun: {message}\n")
        return status


def interrupted(error: Interrupted | KeyboardInterrupt) -> int:
    """Say what stopped the process, and how to go on; the exit status of that signal."""
    number = error.signal if isinstance(error, Interrupted) else signal.SIGINT
    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to stop (SIGTERM)"}
    text = words.get(signal.Signals(number), f"stopped by {signal.Signals(number).name}")
    if isinstance(error, Interrupted) and error.saved:
        text += f"; all work is saved, go on with: nasrun resume {shlex.quote(error.saved)}"
    with suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"nasrun: {text}\n")
    return 128 + number


def command(line: CommandLine) -> int:
    """Help and version, ``resume``, or Hydra's main."""
    if line.has(("--version",)):
        sys.stdout.write(f"nasrun {__version__}\n")
        return 0
    known = [*tasks(), RESUME]
    if line.task not in (None, "help", *known):
        raise UserError(
            f"unknown task {line.task!r}{nearest(str(line.task), known)}; tasks: {', '.join(known)}"
        )
    empty = line.task is None and not line.overrides and not line.switches
    if line.task == "help" or line.has(switches.HELP) or empty:
        from rich.console import Console

        from nasrun.help import show

        task = next((word for word in (line.task, *line.overrides) if word in known), None)
        show(task, line.value(switches.CONFIG_DIR), Console(highlight=False))
        return 0
    if line.task is None and not line.has(switches.WITHOUT_TASK):
        raise UserError(f"no task given: nasrun TASK ..., tasks: {', '.join(known)}")
    return resume_command(line) if line.task == RESUME else hydra_main(line)


def resume_command(line: CommandLine) -> int:
    """Continue the run in the directory that the first word names."""
    from nasrun import sweep
    from nasrun.resume import resume

    if line.switches or not line.overrides:
        switch = f", and no switch like {line.switches[0]}" if line.switches else ""
        raise UserError(
            f"resume takes a run's directory: nasrun resume RUN_DIR [KEY=VALUE]{switch}"
        )
    directory, *overrides = line.overrides
    sweep.note(Path(directory).expanduser(), sweep=False)
    resume(Path(directory), overrides)
    return 0


def hydra_main(line: CommandLine) -> int:
    """Have Hydra compose the configuration and call ``job``, once or for each job of a sweep."""
    from hydra import main as hydra_decorator

    from nasrun import config, sweep

    overrides = ready_overrides(line)
    overrides += place_of_auto(line, overrides)
    failures: list[Exception] = []

    def task_function(composed: DictConfig) -> None:
        # Hydra would print an error its own way: errors are kept, and told at the end.
        try:
            job(composed)
        except Exception as error:
            failures.append(error)
            if sweep.current and sweep.current[0].sweep:
                report_failed_job(error)

    alone = line.task is None or line.has(switches.WITHOUT_TASK)
    task = [] if alone else [f"task={line.task}"]
    decorate = hydra_decorator(
        version_base=config.VERSION_BASE, config_path=str(conf_dir()), config_name="config"
    )
    sweep.current.clear()
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    # The task comes last: Hydra's parser takes no switch after the first override.
    sys.argv = ["nasrun", *line.switches, *overrides, *task]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, do not print
    try:
        decorate(task_function)()
    except config.CONFIGURATION_ERRORS as error:
        raise config.explain(error, overrides + task, line.value(switches.CONFIG_DIR)) from error
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]
        if sweep.current:
            sweep.current[0].remove_if_empty()
    if sweep.current and sweep.current[0].sweep:
        return sweep.exit_status(sweep.read_jobs(sweep.current[0].directory))
    if failures:
        raise failures[0]
    return 0


def ready_overrides(line: CommandLine) -> list[str]:
    """The overrides for Hydra: checked one by one, those of ``from=RUN_DIR`` before the user's."""
    from nasrun.config import parse, quote

    if line.has(switches.WITHOUT_TASK):
        return list(line.overrides)
    several = line.has(switches.MULTIRUN)
    config_dir = line.value(switches.CONFIG_DIR)
    directory: Path | None = None
    overrides = []
    for override in line.overrides:
        key, equals, value = override.partition("=")
        if key == "task":
            raise UserError("the task is a word of its own: nasrun TASK, not task=TASK")
        if line.task in TAKEN_FROM and key in ("from", "architecture") and equals:
            # A path may hold what Hydra's grammar gives a meaning to.
            bare = value[1:-1] if value[:1] in ("'", '"') and value[-1:] == value[:1] else value
            if key == "from" and bare and bare != "null":
                directory = Path(bare)
            if value != "null" and (not several or key == "from"):
                override = f"{key}={quote(bare)}"
        parse(override)
        overrides.append(override)
    if directory is None:
        return overrides
    return with_earlier(directory, TAKEN_FROM[str(line.task)], overrides, config_dir)


def place_of_auto(line: CommandLine, overrides: list[str]) -> list[str]:
    """With ``resume=auto``: the directory, always the same for the same command line."""
    from nasrun.resume import run_name

    several = line.has(switches.MULTIRUN)
    key = "hydra.sweep.dir" if several else "hydra.run.dir"
    if "resume=auto" not in overrides or any(word.startswith(f"{key}=") for word in overrides):
        return []
    name = run_name(str(line.task), overrides, line.value(switches.CONFIG_DIR))
    return [f"{key}=${{outputs}}/${{task}}/{'multirun_' if several else ''}{name}"]


def with_earlier(
    directory: Path, needed: str, overrides: list[str], config_dir: str | None
) -> list[str]:
    """The overrides of the run in ``directory`` and the user's; says which defaults differ.

    needed: the file of the run that the task is about.
    """
    from nasrun import config
    from nasrun.earlier import EarlierRun

    earlier = EarlierRun.read(directory.expanduser(), needed, config_dir)
    if any(override.startswith("experiment=") for override in overrides):
        # A whole recipe: what was said of another one would spoil it.
        left_out = printable(shortened(" ".join(earlier.overrides), 1000))
        if left_out:
            sys.stderr.write(f"nasrun: note: not taken over from {directory}: {left_out}\n")
        return overrides
    try:
        changed = earlier.changed_defaults(overrides, config_dir)
        merged = earlier.merged(overrides, config_dir)
        own = any(override.startswith("split_seed=") for override in overrides)
        if needed == SUPERNET and not own:
            merged = [word for word in merged if not word.startswith("split_seed=")]
            merged.append(earlier.split())
    except config.CONFIGURATION_ERRORS as error:
        told = config.explain(error, earlier.overrides, config_dir)
        raise UserError(f"the overrides of {directory} no longer fit: {told}") from error
    if changed:
        shown = [
            printable(f"{key} (was {shortened(str(was), 80)}, is now {shortened(str(new), 80)})")
            for key, (was, new) in changed.items()
        ]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        sys.stderr.write(
            f"nasrun: note: defaults have changed since {directory}: {', '.join(shown[:6])}{more}\n"
        )
    return merged


def job(composed: DictConfig) -> None:
    """One run: resolve the configuration and begin it, or go on with what the directory holds."""
    from hydra.core.hydra_config import HydraConfig

    from nasrun import config, recipe, resume
    from nasrun.launch import launch
    from nasrun.run.lock import Lock

    if job_name():
        sys.stdout.write(f"{job_name()}\n")
        sys.stdout.flush()
    settings = config.plain(composed)
    if left_out := recipe.leave_out(settings, own_overrides()):
        names = ", ".join(left_out)
        sys.stderr.write(f"nasrun: note: the recipe's {names} mean nothing to the chosen option\n")
    if settings.get("resume") not in ("never", "auto"):
        raise UserError(f"resume={settings.get('resume')}: must be never or auto")
    directory = Path(HydraConfig.get().runtime.output_dir).absolute()
    with Lock(directory) as lock:
        resume.tell_of_stale(lock)
        if not (directory / "run.json").exists():
            launch(settings, directory, own_overrides())
        elif settings["resume"] == "auto":
            changes = resume.differences(settings, directory)
            resume.go_on(directory, changes, own_overrides(), trusted=True)
        else:
            raise UserError(
                f"{directory} holds a run already: go on with it (nasrun resume {directory}), or "
                "choose another place"
            )
    if job_name() and signals.stop.signal is not None:
        raise Interrupted(signals.stop.signal)  # asked while the last lines of a job were written


def own_overrides() -> list[str]:
    """The overrides of this job, without the task."""
    from hydra.core.hydra_config import HydraConfig

    return [word for word in HydraConfig.get().overrides.task if not word.startswith("task=")]


def job_name() -> str:
    """``[2/6] sampler=uniform seed=1`` within a sweep, else nothing."""
    from hydra.core.hydra_config import HydraConfig

    from nasrun import sweep

    if not (sweep.current and sweep.current[0].sweep):
        return ""
    output, number = sweep.current[0], HydraConfig.get().job.num + 1
    swept = [word for word in own_overrides() if word.partition("=")[0] in output.swept]
    of = f"/{output.jobs}" if output.jobs else ""
    return f"[{number}{of}] {' '.join(swept or own_overrides())}".rstrip()


def report_failed_job(error: Exception) -> None:
    """Say it, and leave result.json for the summary; the sweep goes on."""
    from hydra.core.hydra_config import HydraConfig

    _debug()
    message, status = verdict(error)
    sys.stderr.write(f"nasrun: {job_name()}: {message}\n")
    result = {
        "status": "failed",
        "error": message.removeprefix("error: "),
        "kind": "user" if status == 2 else "internal",
        "overrides": own_overrides(),
    }
    try:
        path = Path(HydraConfig.get().runtime.output_dir) / "result.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError:
        return  # the disk is full: the summary will find no result, and say so


def verdict(error: Exception) -> tuple[str, int]:
    """What to say of an error, in one line, and the exit status."""
    error = trouble_with_output(error) or shortage_of_memory(error) or error
    # It may repeat what a stranger wrote.
    text = printable(shortened(" ".join(str(error).split()), 2000))
    if isinstance(error, UserError):
        return f"error: {text}", 2
    return f"internal error: {type(error).__name__}: {text} ({DEBUG}=1 shows the traceback)", 1


def trouble_with_output(error: BaseException) -> UserError | None:
    """The full disk or the unwritable directory behind an error, where that is what it is."""
    output = _output()
    # torch turns an OSError while it saves into a RuntimeError of its own.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, UserError) or cause is None or output is None:
        return None
    path = Path(str(cause.filename)).absolute() if cause.filename else None
    place, advice = path or output, "choose another place with outputs=DIR"
    if cause.errno in NO_SPACE:
        advice = f"or {advice}"
        if (output / "run.json").exists():
            advice = f"then go on with: nasrun resume {output}"
        return UserError(f"no space left to write {place}: {cause.strerror}; free some, {advice}")
    if path and (path.is_relative_to(output) or output.is_relative_to(path)):
        return UserError(f"cannot write {place}: {cause.strerror}; {advice}")
    return None


def shortage_of_memory(error: BaseException) -> UserError | None:
    """The error in words, where no memory was left."""
    if isinstance(error, UserError) or "torch" not in sys.modules:
        return None
    from nasrun.run.compute import is_out_of_memory

    if not is_out_of_memory(error):
        return None
    return UserError(
        f"out of memory: {' '.join(str(error).split())[:160]}; lower batch_size of the trainer or "
        "the evaluator, or the size of the networks; what was saved is kept"
    )


def _output() -> Path | None:
    """The directory of the run or sweep under way."""
    sweep = sys.modules.get("nasrun.sweep")
    return sweep.current[0].directory if sweep and sweep.current else None


def _debug() -> None:
    if os.environ.get(DEBUG) == "1":
        traceback.print_exc()
