"""Say what a trained network sees in images.

from=RUN: a run (its folder, its name, or latest), or a network.safetensors. FILES: images, and
folders of them. top=3: classes that are named of each. out=TABLE: write a table there instead.
device=auto: cuda where there is one, else cpu; or cpu, cuda, cuda:N, mps.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError, nearest
from nasrun.run.files import at_home, printable, write_csv
from nasrun.run.layout import NETWORK

if TYPE_CHECKING:
    from torch import Tensor

    from nasrun.model.model import Model, Prediction

USAGE = "from=RUN FILES..."
SWITCHES = ()

WHOLE_USAGE = f"nasrun predict {USAGE} [top=3] [out=TABLE] [device=auto]"

DEFAULTS = {"from": "", "top": "3", "out": "", "device": "auto"}
"""Settings and their values: the network, classes that are named, the table, the device."""

WORKERS = 4
"""Threads that decode images."""

SHORTEST_NAME = 6
WIDEST_PATH = 16
"""Characters of a class, and of an image, that are shown at least where the terminal is narrow."""


def run(line: CommandLine) -> int:
    """Predict the images that the words name; exit status 1 if some cannot be read."""
    settings, names = sort(line)
    top = whole_number("top", settings["top"])
    out = at_home(settings["out"]) if settings["out"] else None
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"out={out}: there is no folder {out.absolute().parent}")
    from nasrun.model.model import load

    model = load(run_of(settings["from"]), settings["device"])
    model.refuse_unless_files()
    paths, trouble = files_of(names)
    for text in trouble:
        sys.stderr.write(f"nasrun: {text}\n")
    found = predictions(model, paths, top)
    shown = (
        write(out, found, min(top, len(model.classes))) if out else show(model, found, paths, top)
    )
    unread = len(paths) - shown + len(trouble)
    if unread and len(paths) + len(trouble) > 1:
        sys.stderr.write(f"nasrun: {unread:,} of {len(paths) + len(trouble):,} could not be read\n")
    return int(unread > 0)


def sort(line: CommandLine) -> tuple[dict[str, str], list[str]]:
    """Sort the words into settings and names of files; raises UserError over mistakes."""
    if line.switches:
        raise UserError(f"predict takes no switch like {line.switches[0]}: {WHOLE_USAGE}")
    settings, names = dict(DEFAULTS), []
    for word in line.overrides:
        key, equals, value = word.partition("=")
        if equals and key in settings:
            settings[key] = value
        elif equals and re.fullmatch(r"[a-z_.]+", key) and not os.path.lexists(word):
            known = nearest(key, settings) or f"; settings: {', '.join(settings)}"
            raise UserError(f"predict has no setting {key!r}{known}")
        else:
            names.append(word)
    if not settings["from"]:
        raise UserError(f"predict needs a network: from=RUN_DIR, or from=FILE of a {NETWORK}")
    if not names:
        raise UserError(f"predict needs images, or folders of them: {WHOLE_USAGE}")
    return settings, names


def run_of(word: str) -> Path:
    """Return the run, or the file of weights, that ``from`` names."""
    from nasrun.cli.run_names import resolve

    path = at_home(word)
    return path if is_file(path) else resolve(word, needed=NETWORK)


def is_file(path: Path) -> bool:
    """Tell whether there is something of this name that is no folder."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:  # too long a name
        return False


def whole_number(key: str, value: str) -> int:
    """Return a number from 1 on; raises UserError if the text is none."""
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) < 1:
        raise UserError(f"{key}={printable(value)}: must be a whole number from 1 on")
    return int(value)


def files_of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the image files, those in folders included, and what is wrong with folders."""
    from nasrun.dataset.listing import images_below

    paths: list[str] = []
    trouble: list[str] = []
    for name in names:
        place = str(at_home(name))
        try:
            if not Path(place).is_dir():
                paths.append(place)
            elif below := images_below(place):
                paths += below
            else:
                trouble.append(f"no images in {printable(place)}")
        except (UserError, OSError) as error:
            trouble.append(printable(str(error)))
    return paths, trouble


@dataclass(frozen=True)
class Found:
    """The predictions of a batch of files, None for one that cannot be read, and why."""

    paths: Sequence[str]
    predictions: Sequence[Prediction | None]
    errors: Sequence[str]


def predictions(model: Model, paths: Sequence[str], top: int) -> Iterator[Found]:
    """Yield predictions in batches; a file that cannot be read stops nothing."""
    from nasrun.dataset.checking import in_threads
    from nasrun.model.model import BATCH_SIZE

    def read(path: str) -> Tensor | UserError:
        try:
            return model.preprocess(path)[0]
        except UserError as error:
            return error

    for start in range(0, len(paths), BATCH_SIZE):
        batch = paths[start : start + BATCH_SIZE]
        with closing(in_threads(read, batch, WORKERS)) as done:
            images = list(done)
        readable = [image for image in images if not isinstance(image, UserError)]
        named = iter(model.predict(readable, top=top))
        yield Found(
            batch,
            [None if isinstance(image, UserError) else next(named) for image in images],
            [str(image) for image in images if isinstance(image, UserError)],
        )


def told(found: Iterator[Found]) -> Iterator[tuple[str, Prediction]]:
    """Yield the path and the prediction of each readable file, and name the others on stderr."""
    for batch in found:
        for path, prediction in zip(batch.paths, batch.predictions, strict=True):
            if prediction is not None:
                yield path, prediction
        sys.stdout.flush()
        for error in batch.errors:
            sys.stderr.write(f"nasrun: {error}\n")


def show(model: Model, found: Iterator[Found], paths: Sequence[str], top: int) -> int:
    """Print a table, line by line as it comes; returns the number of predictions."""
    from rich.console import Console

    path_width = max((len(printable(path)) for path in paths), default=0)
    name_width = max(len(printable(name)) for name in model.classes)
    console = Console()
    if console.is_terminal:  # a pipe or a file gets whole names
        share = (console.width - WIDEST_PATH) // top - 10
        name_width = min(name_width, max(share, SHORTEST_NAME))
        path_width = min(path_width, max(console.width - top * (name_width + 10), WIDEST_PATH))
    count = 0
    for path, prediction in told(found):
        classes = (
            f"  {cut(name, name_width):<{name_width}} {100 * probability:5.1f} %"
            for name, probability in prediction.top
        )
        sys.stdout.write(f"{cut(path, path_width):<{path_width}}{''.join(classes)}\n")
        count += 1
    return count


def cut(text: str, width: int) -> str:
    """Return a text that can be shown, without its middle if it is too long."""
    text = printable(text)
    if len(text) <= width:
        return text
    return f"{text[: (width - 1) // 2]}…{text[len(text) - width // 2 :]}"


def write(out: Path, found: Iterator[Found], top: int) -> int:
    """Write a CSV file, whole or not at all; returns the number of predictions."""
    columns = ["file", "class", "probability"]
    for place in range(2, top + 1):
        columns += [f"class_{place}", f"probability_{place}"]
    rows = [
        [path, *(value for name, p in prediction.top for value in (name, f"{p:.6f}"))]
        for path, prediction in told(found)
    ]
    try:
        write_csv(out, columns, rows)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror}") from error
    words = "prediction" if len(rows) == 1 else "predictions"
    sys.stdout.write(f"{len(rows):,} {words} in {printable(str(out))}\n")
    return len(rows)
