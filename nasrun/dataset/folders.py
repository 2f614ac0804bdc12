"""Names of folders: splits in all usual spellings, classes, and those passed over."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nasrun.errors import UserError
from nasrun.run.files import printable

SplitName = Literal["train", "validation", "test"]

SPLIT_WORDS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Names of splits, in lower case."""

_FILLERS = "set|sets|data|dataset|images|image|imgs|img|split|seg|folder|dir|files|samples"
"""Words that stand beside the name of a split and mean nothing: ``test_set``, ``seg_train``."""

SYSTEM_FOLDERS = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information")
"""Folders that systems leave behind, in lower case."""

SHOWN = 3
"""Names of a kind that are shown in a message."""


def words_of(name: str) -> list[str]:
    """Divide a name into words of lower case: ``trainSet_2017`` into train, set."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = (word.rstrip("0123456789") for word in re.split(r"[\W_]+", spaced.casefold()))
    return [word for word in words if word]


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder of this name holds; None: it is no name of a split."""
    words = [word for word in words_of(name) if not re.fullmatch(_FILLERS, word)]
    if len(words) != 1:
        return None
    whole = re.fullmatch(rf"(.+?)(?:{_FILLERS})", words[0])  # trainset
    return SPLIT_WORDS.get(words[0]) or (SPLIT_WORDS.get(whole[1]) if whole else None)


def split_within(name: str) -> SplitName | None:
    """Return the split that is named among other words: ``ILSVRC2012_img_train``."""
    found = {SPLIT_WORDS[word] for word in words_of(name) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def named(names: Iterable[str], shown: int = SHOWN) -> str:
    """Write some names in words: the first ones, and the number of the others."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(every[:shown]) + more


@dataclass
class Content:
    """The names in one folder, sorted; hidden ones and systems' folders are left out.

    folders: also links to folders. files: regular files, also links to them. linked: those of
    both that are links. odd: pipes, devices, links that lead nowhere.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def content_of(folder: str | Path) -> Content:
    """List a folder; raises UserError where it cannot be read."""
    content = Content()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FOLDERS:
                    content.passed_over += [entry.name] if _is_folder(entry) else []
                elif _is_folder(entry):
                    content.folders.append(entry.name)
                elif _is_file(entry):
                    content.files.append(entry.name)
                else:
                    content.odd.append(entry.name)
                if entry.is_symlink():
                    content.linked.add(entry.name)
    except OSError as error:
        raise UserError(
            f"cannot read the folder {printable(str(folder))}: {error.strerror}"
        ) from error
    for names in (content.folders, content.files, content.odd, content.passed_over):
        names.sort()
    return content


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


@dataclass(frozen=True)
class Layout:
    """The folders of the splits; without split folders, ``train`` is the root.

    root: without links. folders: of each split that has one. unused: folders beside them.
    notes: sentences for the user.
    """

    root: Path
    folders: dict[SplitName, Path]
    unused: list[str]
    notes: list[str]

    @property
    def flat(self) -> bool:
        """Tell whether the class folders stand in the root."""
        return self.folders["train"] == self.root

    def name(self, split: SplitName) -> str:
        """Write the folder of a split as it is shown, relative to the root."""
        return printable(f"{self.folders[split].relative_to(self.root)}/")


def find_layout(root: Path) -> Layout:
    """Find the folders of the splits in ``root``, or that it holds classes.

    Raises UserError if it is none, or if its folders have more than one meaning.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root.absolute()}: set dataset.root to the images")
    root = root.resolve()
    content = content_of(root)
    kinds = _kinds(root, content.folders)
    folders: dict[SplitName, Path] = {}
    notes: list[str] = []
    for name, kind in kinds.items():
        if kind is None:
            continue
        if kind in folders:
            raise UserError(
                f"{root} has two folders for one split, {folders[kind].name} and "
                f"{printable(name)}: leave one of them there"
            )
        folders[kind] = root / name
    unused = [name for name, kind in kinds.items() if kind is None]
    if "train" in folders:
        folders = {kind: _doubled(folder, kind) for kind, folder in folders.items()}
        if not content_of(folders["train"]).folders:
            raise UserError(
                f"{folders['train']} is named like a split, but holds no folders, one for each "
                "class: if it is a class, rename it; a split needs a folder for each class"
            )
        for kind in ("validation", "test"):
            if kind in folders and not content_of(folders[kind]).folders:
                count = len(content_of(folders[kind]).files)
                notes.append(
                    f"{printable(folders[kind].name)}/ is not used: it has no folders of classes, "
                    f"so its {count:,} files have no labels"
                )
                del folders[kind]
        return Layout(root, folders, unused, notes)
    if folders:
        one = next(iter(folders.values()))
        raise UserError(
            f"{root} holds {named(sorted(f.name for f in folders.values()))}, named like a split, "
            f"but no folder train: put the classes of the training images into {root / 'train'}, "
            f"or, if {printable(one.name)} is a class, rename it"
        )
    return Layout(root, {"train": root}, [], notes)


def _kinds(root: Path, names: list[str]) -> dict[str, SplitName | None]:
    """Return the split of each folder, None for one that is none.

    A split that is named among other words counts only where all folders are splits and hold
    folders: ``train_station`` is a class.
    """
    kinds = {name: split_of(name) for name in names}
    loose = {name: kind or split_within(name) for name, kind in kinds.items()}
    if len(names) > 1 and kinds != loose and None not in loose.values():
        inner = [content_of(root / name) for name in names]
        if all(content.folders and not content.files for content in inner):
            return loose
    return kinds


def _doubled(folder: Path, kind: SplitName) -> Path:
    """Return the folder itself, or the only one in it of the same name: ``train/train``."""
    while True:
        content = content_of(folder)
        if len(content.folders) != 1 or split_of(content.folders[0]) != kind or content.linked:
            return folder
        folder = folder / content.folders[0]


def class_names(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """List the folders of classes in ``folder``, sorted, and the links that are not followed.

    A link to a folder is followed only here, where it names a class, and only out of ``root``.
    Raises UserError if there are fewer than two, or one is named like a split.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder.absolute()}: set dataset.root to the images")
    content = content_of(folder)
    inside = [name for name in content.folders if name in content.linked]
    inside = [name for name in inside if not _leads_out(folder / name, root)]
    names = [name for name in content.folders if name not in inside]
    for name in names:
        if split_of(name):
            raise UserError(
                f"{folder / name} is named like a split, so it is no class: put training and test "
                "images into train/CLASS and test/CLASS, or, if it is a class, rename it"
            )
    if not names:
        images = f", but {len(content.files):,} files" if content.files else ""
        raise UserError(
            f"no images: {folder.absolute()} holds no folders, one for each class{images}"
        )
    if len(names) == 1:
        within = content_of(folder / names[0]).folders
        holds = f", which holds the folders {named(within)}" if within else ""
        raise UserError(
            f"{folder.absolute()} holds one class only ({printable(names[0])}{holds}): give every "
            "class a folder of its own"
            + (", or set dataset.root to the folder that holds the classes" if within else "")
        )
    same: dict[str, str] = {}
    for name in names:
        other = same.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{folder.absolute()} has two folders of one name, {printable(name)!r}, written "
                "with other codes for the same letters: join them"
            )
    return names, inside


def _leads_out(link: Path, root: Path) -> bool:
    """Tell whether a link leads out of ``root``, and not to a folder that holds it."""
    target = link.resolve()
    return not target.is_relative_to(root) and not root.is_relative_to(target)
