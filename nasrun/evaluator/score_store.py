"""The store of scores by supernets: no path is scored twice on the same weights and images."""

from __future__ import annotations

import inspect
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nasrun.evaluator
import nasrun.search_space
from nasrun.dataset.base import Batch
from nasrun.evaluator.paths import Shares
from nasrun.run.files import at_home, open_for_writing, write_bytes
from nasrun.search_space.base import Supernet

VERSION = 1
"""Format of the store; one of another format is begun anew."""

NAME = "scores.sqlite"
"""The file of the store in its folder."""

WAIT_SECONDS = 30
"""A process waits so long for others that write, then it goes on without the store."""

PathChoices = tuple[int, ...]
"""The option that a path opens in each decision."""


class ScoreStore:
    """Scores in a file of SQLite, by a digest of all that they depend on and by path.

    Several processes may use it at once. Each score has a digest of its own, and one that does not
    fit is not used. A file that is damaged, or of another version, is begun anew; where the store
    cannot be used at all, it is left alone: either is said in one line, and no run ends by it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = at_home(folder) / NAME
        self.usable = True

    def of(self, definition: str, say: Callable[[str], None]) -> KeptScores:
        """Return the scores of a definition. say: is told what is wrong with the store."""
        return KeptScores(self, definition, say)

    def do(self, work: Callable[[sqlite3.Connection], Any], say: Callable[[str], None]) -> Any:
        """Return what ``work`` returns; None if the store cannot be used.

        Raises UserError if the file is a link.
        """
        if not self.usable:
            return None
        try:
            try:
                return self._once(work, say)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:  # what is in the file makes no sense
                say(f"the store {self.path} is damaged ({error}): it is begun anew")
                self._begin_anew()
                return self._once(work, say)
        except (OSError, sqlite3.Error) as error:
            self.usable = False
            say(f"the store {self.path} is not used: {error}")
            return None

    def _once(self, work: Callable[[sqlite3.Connection], Any], say: Callable[[str], None]) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        open_for_writing(self.path, keep=None).close()  # refuses links; makes an empty file
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        with closing(connection) as database:
            database.text_factory = lambda text: text.decode(errors="replace")
            # A power cut may damage the file, and a damaged one is begun anew.
            database.execute("PRAGMA synchronous = OFF")
            if _version(database) != VERSION:
                _make_table(database, self.path, say)
            return work(database)

    def _begin_anew(self) -> None:
        write_bytes(self.path, b"")
        self.path.with_name(f"{NAME}-journal").unlink(missing_ok=True)


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _make_table(database: sqlite3.Connection, path: Path, say: Callable[[str], None]) -> None:
    """Make the table in an empty file, or in the place of that of another version."""
    database.execute("BEGIN IMMEDIATE")
    if (found := _version(database)) != VERSION:  # another process may have been faster
        if found:
            say(f"the store {path} is of version {found}, not {VERSION}: it is begun anew")
        database.execute("DROP TABLE IF EXISTS scores")
        database.execute(
            "CREATE TABLE scores (definition TEXT, path TEXT, shares TEXT, digest TEXT, "
            "PRIMARY KEY (definition, path)) WITHOUT ROWID"
        )
        database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute("COMMIT")


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class KeptScores:
    """The scores of one definition: of one supernet on the same images by the same protocol."""

    store: ScoreStore
    definition: str
    say: Callable[[str], None]

    def read(self) -> dict[PathChoices | None, Shares]:
        """Return all scores so far by path."""
        query = "SELECT path, shares, digest FROM scores WHERE definition = ?"

        def rows(database: sqlite3.Connection) -> list[list[str]]:
            # Without this, rows that a damage hides would be missing silently.
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(" ".join(state.split()))
            found = database.execute(query, (self.definition,)).fetchall()
            return [list(map(str, row)) for row in found]

        return {
            tuple(json.loads(path)): json.loads(shares)
            for path, shares, digest in self.store.do(rows, self.say) or ()
            if digest == _digest(self.definition, path, shares)
        }

    def add(self, path: PathChoices | None, shares: Shares) -> None:
        """Add a score; other processes see it at once. One that is not finite is not kept.

        path: None: it was a mixture of several paths, whose scores are not kept.
        """
        if path is None or not math.isfinite(shares[0]):
            return
        key, value = json.dumps(list(path)), json.dumps(list(shares))
        row = (self.definition, key, value, _digest(self.definition, key, value))

        def insert(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", row)

        self.store.do(insert, self.say)


def definition_of(
    supernet: Supernet, images: Sequence[Iterable[Batch]], protocol: Mapping[str, Any]
) -> str:
    """Return a digest of all that the score of a path of a supernet depends on, but the path.

    That is its weights and statistics, what its modules are, the code of search spaces and
    evaluators, torch, and:

    images: all batches that pass through a path. protocol: the settings of scoring, and the device.
    """
    told = {
        "images": [_of_tensors(_tensors(batches)) for batches in images],
        "protocol": dict(protocol),
        "modules": [_described(name, module) for name, module in supernet.named_modules()],
        "weights": weights_of(supernet),
        "code": [_code(), _source(inspect.getfile(type(supernet)))],
        "torch": str(torch.__version__),
    }
    return blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


def weights_of(supernet: Supernet) -> str:
    """Return a digest of the weights and statistics of a supernet."""
    return _of_tensors(supernet.state_dict().items())


def _of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a digest of named tensors: of names, types, shapes and values."""
    state = blake2b(digest_size=16)
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        state.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        state.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _tensors(batches: Iterable[Batch]) -> Iterator[tuple[str, Tensor]]:
    for images, labels in batches:
        yield "images", images
        yield "labels", labels


def _described(name: str, module: nn.Module) -> list[Any]:
    """Describe a module: its name, its class, and its settings, without tensors and hooks."""
    settings = {
        key: _plain(value)
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training"
    }
    return [name, type(module).__qualname__, settings]


def _plain(value: Any) -> Any:
    """Return a value as JSON: numbers, texts, and lists, mappings and data classes of them."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return type(value).__qualname__


@cache
def _code() -> str:
    """Return a digest of the code of search spaces and evaluators."""
    packages = nasrun.search_space, nasrun.evaluator
    folders = [Path(str(package.__file__)).parent for package in packages]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return _digest(*(path.read_text(encoding="utf-8") for path in files))


@cache
def _source(path: str) -> str:
    """Return a digest of the code in a file."""
    return _digest(Path(path).read_text(encoding="utf-8"))
