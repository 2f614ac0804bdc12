"""Fit a recipe to another data set than its own.

``experiment=spos_cifar10 dataset=image_folder`` keeps the method of the recipe. What the recipe
says of its own images does not fit others: numbers of images become shares or upper bounds, budgets
go with the pixels of an image, and its other settings of the data set give way to the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasrun.config.compose import parse
from nasrun.config.efforts import option_settings, settings_of_effort
from nasrun.config.groups import defaults, option_of_recipe

PUBLISHED = {
    "cifar10": (50_000, 32),
    "cifar100": (50_000, 32),
    "digits": (1_437, 8),
    "fashion_mnist": (60_000, 28),
    "imagenet": (1_281_167, 224),
}
"""Training images of a data set, and the side of an image in pixels."""

LARGE_SIDE = 64
"""Pixels of the side from which on the stem of ImageNet suits images."""

IMAGES_TO_SCORE = ("evaluator", "rank.also")
"""Places of evaluators that take a number of images of the data set."""

PER_PIXEL = (
    *("budget.macs.max", "budget.macs.min", "budget.bitops.max", "budget.bitops.min"),
    *("search_space.final.macs", "sampler.low", "sampler.high", "search_algo.cost.reference"),
)
"""Settings that count multiply-adds or bit-operations of one image."""


def fit_to_data(
    settings: dict[str, Any], overrides: Sequence[str], config_dir: str | None
) -> list[str]:
    """Fit a recipe's settings to the data set that the command line chooses in its place.

    settings: the plain configuration; changed. overrides: those of the command line; what they name
    stays as typed. config_dir: the user's folder of options, if any.
    Returns what was fitted, as a sentence for each kind; [] if the recipe is for these images.
    """
    typed = {parse(word).get_key_element().lstrip("+~"): word for word in overrides}
    recipe, chosen = (typed.get(key, "").partition("=")[2] for key in ("experiment", "dataset"))
    own = option_of_recipe(recipe, "dataset", config_dir) or defaults()["dataset"]
    option = option_settings("dataset", chosen, config_dir) if chosen else {}
    node = settings.get("dataset")
    if not recipe or chosen in ("", own) or not isinstance(node, dict):
        return []
    if node.get("_target_") != option.get("_target_"):
        return []  # an effort has made images up
    kept = typed.keys() | settings_of_effort(overrides, "dataset", chosen, config_dir)
    fitting = _Fitting(settings, kept)
    fitting.images(own, chosen, option)
    fitting.pixels(own, chosen)
    said = []
    if fitting.changed:
        changed = ", ".join(f"{key}={value}" for key, value in fitting.changed.items())
        said.append(f"{recipe} is for {own}; to fit {chosen}: {changed}")
    return [*said, *fitting.notes, *_strange_tables(settings, typed, own)]


class _Fitting:
    """Changes settings, unless they are ``kept``, and remembers what it has changed."""

    def __init__(self, settings: dict[str, Any], kept: set[str]) -> None:
        self.settings, self.kept = settings, kept
        self.changed: dict[str, str] = {}
        self.notes: list[str] = []
        self.side_of_recipe: int | None = None

    def get(self, key: str) -> Any:
        node: Any = self.settings
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    def set(self, key: str, value: Any, shown: str | None = None) -> None:
        """Set a setting that exists and that the user has not named."""
        *parents, leaf = key.split(".")
        node: Any = self.settings
        for name in parents:
            node = node[name]
        if key not in self.kept and node[leaf] != value:
            node[leaf] = value
            self.changed[key] = "null" if value is None else shown or str(value)

    def images(self, own: str, chosen: str, option: Mapping[str, Any]) -> None:
        """Fit numbers of images, and forget what the recipe says of its own images."""
        node = self.settings["dataset"]
        held_out, trained = node.get("validation"), node.get("train_images")
        total, self.side_of_recipe = PUBLISHED.get(own, (None, None))
        if isinstance(node.get("image_size"), int) and own != "synthetic":
            reduced = node["image_size"] != option.get("image_size")
            self.side_of_recipe = node["image_size"] if reduced else self.side_of_recipe
        for key in node.keys() & option.keys() - {"_target_", "validation", "train_images"}:
            if "${" not in str(option[key]):  # an interpolation is no value of a recipe
                self.set(f"dataset.{key}", option[key])
        for key in ("validation", "train_images"):
            if chosen == "synthetic" and key in option:
                self.set(f"dataset.{key}", option[key])
        there = PUBLISHED.get(chosen, (0, None))[0]
        counted = type(held_out) is int and held_out != option.get("validation")
        if counted and chosen != "synthetic":
            assert isinstance(held_out, int)  # noqa: S101
            used = held_out + trained if isinstance(trained, int) else total
            if used and held_out + (trained or 1) > there:
                share = round(held_out / used, 3)
                self.set("dataset.validation", share, f"{share:g} ({held_out:,} of {used:,})")
        few = type(trained) is int and trained != option.get("train_images")
        if few and chosen != "synthetic":
            assert isinstance(trained, int)  # noqa: S101
            if trained + (held_out if type(held_out) is int else 0) > there:
                self.set("dataset.train_images", f"at most {trained}")
        for place in IMAGES_TO_SCORE:
            count = self.get(f"{place}.images")
            if type(count) is int:
                self.set(f"{place}.images", f"at most {count}")
            elif counted and isinstance(self.get(place), dict) and "images" in self.get(place):
                self.set(f"{place}.images", f"at most {held_out}")

    def pixels(self, own: str, chosen: str) -> None:
        """Fit what goes with the pixels of an image, and name a stem that suits them better."""
        before, node = self.side_of_recipe, self.settings["dataset"]
        now = node.get("image_size") or PUBLISHED.get(chosen, (0, None))[1]
        if not (isinstance(before, int) and isinstance(now, int)) or before == now:
            return
        factor = (now / before) ** 2
        for key in PER_PIXEL:
            in_macs = {
                "sampler": self.get("sampler.size") == "macs",
                "search_algo": self.get("search_algo.cost.cost") == "macs",
            }
            value = self.get(key)
            fits = in_macs.get(key.partition(".")[0], True)
            if fits and isinstance(value, int | float) and not isinstance(value, bool):
                shown = f"{value * factor:.3g}"
                millions = f"{value * factor / 1e6:.3g}M" if value > 1e3 else shown
                self.set(key, float(shown), millions)
        stem, large = self.get("search_space.stem"), now >= LARGE_SIDE
        hint = ""
        if stem is not None and "search_space.stem" not in self.kept:
            if large and stem != "imagenet":
                hint = "; search_space.stem=imagenet suits such images, at a fraction of them"
            if not large and stem == "imagenet":
                hint = f"; search_space.stem=imagenet is for {LARGE_SIDE} pixels and more"
        self.notes.append(
            f"images of {now} pixels where the recipe has {before} take {factor:.2g} times the "
            f"multiply-adds{hint}"
        )


def _strange_tables(settings: Mapping[str, Any], typed: Mapping[str, str], own: str) -> list[str]:
    """Warn of a recipe's table of accuracies, which were measured on other images."""
    for place in ("rank.truth", "compare.truth", "retrain.truth"):
        node: Any = settings
        for name in place.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        path = node.get("path") if isinstance(node, Mapping) else None
        if path and f"{place}.path" not in typed:
            return [f"the accuracies in {path} ({place}.path) are those of {own}"]
    return []
