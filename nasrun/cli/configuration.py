"""``--cfg job``: the composed configuration with the comments of its files."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from nasrun.cli.arguments import CommandLine
from nasrun.config.annotate import annotated, comments
from nasrun.config.compose import parse

CFG = ("-c", "--cfg")
PACKAGE = ("-p", "--package")


@contextmanager
def commented(line: CommandLine, overrides: Sequence[str]) -> Iterator[None]:
    """Add comments to the configuration that Hydra prints inside of the block.

    The block runs as it is if the command line asks for anything but ``--cfg job``.
    """
    if line.value(CFG) != "job":
        yield
        return
    printed = io.StringIO()
    with redirect_stdout(printed):
        yield
    given = [parse(override).get_key_element().lstrip("+~") for override in overrides]
    package = (line.value(PACKAGE) or "").removeprefix("_global_")
    sys.stdout.write(annotated(printed.getvalue(), comments(given), package))
