"""The record of a job of a sweep that has failed, kept so that no result is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nasrun.errors import UserError
from nasrun.report.run_files import RunDirectory
from nasrun.run.files import append, write_json
from nasrun.run.layout import RECORD, RESULT, SWEEP_REFUSALS
from nasrun.run.lock import Lock


def record_failure(
    directory: Path, sweep: Path, number: int, failure: Mapping[str, Any], *, ran: bool
) -> None:
    """Write a failure where the summary of the sweep finds it.

    It goes to result.json if it is the end of this very run: then the lock of ``directory`` is
    held, and a result that says ``done`` stays. Otherwise the job was refused: the directory
    belongs to another run, or to another process, and the failure goes to a file of the sweep.

    directory: of the job. sweep: the folder of the sweep. number: of the job, from 0.
    failure: the content of result.json. ran: whether the task had begun to run.
    """
    if not _kept_as_result(directory, failure, ran=ran):
        line = json.dumps({"job": number, **failure})
        with suppress(UserError, OSError):  # the summary will report that there is no result
            append(sweep / SWEEP_REFUSALS, line.encode() + b"\n")


def _kept_as_result(directory: Path, failure: Mapping[str, Any], *, ran: bool) -> bool:
    if directory.is_symlink():
        return False
    try:
        with Lock(directory):
            begun = os.path.lexists(directory / RECORD)
            done = RunDirectory(directory, strict=False).status == "done"
            if done or (begun and not ran):
                return False
            write_json(directory / RESULT, failure)
    except (UserError, OSError):  # in use, or the disk is full
        return False
    return True
