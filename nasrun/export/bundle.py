"""The texts of a bundle: model.py around the classes of the network, and the README."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nasrun import __version__
from nasrun.dataset.preprocessing import Preprocessing
from nasrun.errors import shortened
from nasrun.export.layers import WIDTH, quoted
from nasrun.model.manifest import Manifest
from nasrun.model.model import Model
from nasrun.run.files import printable
from nasrun.run.layout import BUNDLE_CODE, BUNDLE_ONNX, BUNDLE_TORCH, NETWORK
from nasrun.values import MapSize

_IMPORTS = """import json
from pathlib import Path

import torch
from torch import Tensor, nn
"""

_TORCH = "import torch\n"

_LOAD = '''def normalise(pixels: Tensor) -> Tensor:
    """Turn pixels, uint8 [B, C, S, S], into the input of the network, float32."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (pixels / 255 - mean.to(pixels.device)) / std.to(pixels.device)


'''

_WEIGHTS = '''def load(weights: str | Path | None = None) -> Network:
    """Return the trained network in evaluation mode; weights: a file, else that beside this."""
    data = bytearray(Path(weights or Path(__file__).with_name("<weights>")).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    entries = json.loads(data[8:start])
    state = {}
    network = Network()
    for name in network.state_dict():
        entry = entries[name]
        first, last = entry["data_offsets"]
        kind = types[entry["dtype"]]
        count = (last - first) // kind.itemsize
        values = torch.frombuffer(data, dtype=kind, offset=start + first, count=count)
        state[name] = values.view(entry["shape"]).clone()
    network.load_state_dict(state)
    return network.eval()
'''


def python_file(model: Model, classes: str) -> str:
    """Return the text of model.py. classes: text of the classes of the network.

    Nothing of it but plain values comes from the network's file.
    """
    manifest, preprocessing = model.manifest, model.manifest.preprocessing
    lines = [
        f'"""A network of {len(model.classes)} classes, written by nasrun {__version__}.',
        "",
        "It needs torch alone. ``load()`` reads the weights beside this file; the network takes",
        f"images float32 {_shape(manifest)}, prepared as the README tells, and returns logits.",
        '"""',
        "",
    ]
    values = [f"CLASSES = {_listed(model.classes)}", f"SIZE = {manifest.size}"]
    if preprocessing is not None:
        values += [f"MEAN = {_floats(preprocessing.mean)}", f"STD = {_floats(preprocessing.std)}"]
    load = (_LOAD if preprocessing is not None else "") + _WEIGHTS.replace("<weights>", NETWORK)
    imports = _IMPORTS
    if re.search(r"\bF\.", classes):
        imports = imports.replace(_TORCH, f"{_TORCH}import torch.nn.functional as F\n")
    head = "\n".join([*lines, imports, *values])
    return f"{head}\n\n\n{classes}\n\n{load}"


def _floats(values: Sequence[float]) -> str:
    return repr([float(value) for value in values])


def _listed(names: Sequence[str]) -> str:
    """Write the names of classes as a list of Python, some on a line; escaped where need be."""
    words = [quoted(name) for name in names]
    flat = f"[{', '.join(words)}]"
    if len(flat) < WIDTH - 12:
        return flat
    lines, line = ["["], "   "
    for word in words:
        if len(line) + len(word) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return "\n".join([*lines, line, "]"])


@dataclass(frozen=True)
class Made:
    """A file of the bundle.

    name: of the file. difference: largest difference of its outputs; None: the weights themselves.
    left_out: why there is no such file; None: it is there.
    """

    name: str
    difference: float | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class Story:
    """Everything that the README tells beside the model itself, in words.

    command: that trained it. facts: label and text each, of the run. latencies: lines.
    checked: what the files were compared on.
    """

    command: str | None
    facts: Sequence[tuple[str, str]]
    latencies: Sequence[str]
    checked: str


def readme(model: Model, made: Mapping[str, Made], story: Story) -> str:
    """Return the README of a bundle, in Markdown."""
    manifest = model.manifest
    problem, cost = manifest.problem, manifest.cost
    accuracies = [
        (f"{name.replace('_', ' ')}", f"{100 * value:.2f} %")
        for name, value in manifest.measured.items()
    ]
    sizes = [
        ("parameters", f"{cost.params:,}"),
        ("multiply-adds of an image", f"{cost.macs:,}"),
        ("input", f"float32 {_shape(manifest)}"),
        ("output", f"logits [B, {problem.classes}]"),
    ]
    parts = [
        f"# A network of {model.space.name} for {problem.classes} classes",
        f"Searched, trained and exported by nasrun {__version__}.",
        _files(made, story.checked),
        "## Use",
        _use(model, made),
        "## Preprocessing",
        *_preprocessing(manifest.preprocessing),
        "## Sizes and accuracy",
        _table([*sizes, *accuracies]),
        *(["## Latency", "\n".join(story.latencies)] if story.latencies else []),
        "## Architecture",
        f"`{_one_line(model.space.write(model.architecture))}`",
        _code("text", [_one_line(line) for line in model.space.describe(model.architecture)]),
        "## Where it comes from",
        _table([(label, _cell(text)) for label, text in story.facts]),
        *([_code("", [_one_line(story.command)])] if story.command else []),
        "## Classes",
        _code("text", [f"{k} {_one_line(name)}" for k, name in enumerate(model.classes)]),
    ]
    return "\n\n".join(parts) + "\n"


def _files(made: Mapping[str, Made], checked: str) -> str:
    about = {
        NETWORK: "weights, with a description that nasrun reads: `nasrun.load(FILE)`",
        BUNDLE_CODE: "the network in Python, importing torch alone",
        BUNDLE_TORCH: "a program of `torch.export`",
        BUNDLE_ONNX: "ONNX, for onnxruntime and many others",
    }
    rows = ["| file | what | largest difference of outputs |", "|---|---|---|"]
    for name, file in made.items():
        if file.left_out is not None:
            rows.append(f"| {name} | left out: {_cell(file.left_out)} | |")
        else:
            gap = "" if file.difference is None else f"{file.difference:.1e}"
            rows.append(f"| {name} | {about[name]} | {gap} |")
    return "\n".join([*rows, "", f"The differences are from the trained network, on {checked}."])


def _use(model: Model, made: Mapping[str, Made]) -> str:
    ways = []
    there = {name for name, file in made.items() if file.left_out is None}
    if BUNDLE_CODE in there:
        ways.append(["from model import CLASSES, load", "", "network = load()"])
    if BUNDLE_TORCH in there:
        ways.append(["import torch", "", f'network = torch.export.load("{BUNDLE_TORCH}").module()'])
    blocks = [_code("python", [*way, "logits = network(images)"]) for way in ways]
    if BUNDLE_ONNX in there:
        blocks.append(
            _code(
                "python",
                [
                    "import onnxruntime",
                    "",
                    f'session = onnxruntime.InferenceSession("{BUNDLE_ONNX}")',
                    '(logits,) = session.run(None, {"images": images.numpy()})',
                ],
            )
        )
    words = (
        f"`images` is float32 {_shape(model.manifest)}, for any B. The probabilities are "
        "`logits.softmax(1)`."
    )
    return "\n\n".join([*blocks, words])


def _preprocessing(settings: Preprocessing | None) -> list[str]:
    """Tell in words and in code how an image becomes the input of the network."""
    if settings is None:
        return ["The data set does not tell how its images become tensors."]
    size, kind = MapSize.of(settings.size), "grey" if settings.channels == 1 else "RGB"
    high, wide = (round(side * settings.margin) for side in (size.height, size.width))
    behind = "rgb({}, {}, {})".format(*settings.background)
    mode = '"L"' if settings.channels == 1 else '"RGB"'
    if settings.fit == "pad":
        cut = f"padded to this form with {behind}, scaled to {size.words} pixels (bilinear)"
        code = [
            f"scale = max(image.height / {size.height}, image.width / {size.width})",
            f"scale = min(scale, {settings.source_side} / {size.long})",
            f"frame = round(scale * {size.width}), round(scale * {size.height})",
            "resample = Image.Resampling.BILINEAR",
            f'image = ImageOps.pad(image, frame, resample, color="{behind}")',
            f"image = image.resize(({size.width}, {size.height}), resample)",
        ]
    elif settings.resize == "area":
        cut = f"cut to the square at its centre, scaled to {size.words} pixels (means of areas)"
        code = [
            "side = min(image.size)",
            "left, top = [(full - side) // 2 for full in image.size]",
            "image = image.crop((left, top, left + side, top + side))",
            f"image = image.resize(({size.width}, {size.height}), Image.Resampling.BOX)",
        ]
    else:
        cut = f"scaled (bilinear) so that it just covers {high}×{wide} pixels, and cut to the "
        cut += f"{size.words} pixels at its centre"
        code = [
            f"if image.height * {wide} < image.width * {high}:",
            f"    sides = {high} * image.width // image.height, {high}",
            "else:",
            f"    sides = {wide}, {wide} * image.height // image.width",
            "image = image.resize(sides, Image.Resampling.BILINEAR)",
            f"left = round((sides[0] - {size.width}) / 2)",
            f"top = round((sides[1] - {size.height}) / 2)",
            f"image = image.crop((left, top, left + {size.width}, top + {size.height}))",
        ]
    mean, std = _floats(settings.mean), _floats(settings.std)
    words = (
        f"An image is turned upright as its EXIF data say and read as {kind} (over {behind}, where "
        f"it is transparent), then {cut}. Pixels are divided by 255; then the mean {mean} is "
        "subtracted, and the result is divided by the "
        f"standard deviation {std}."
    )
    lines = [
        "import numpy as np",
        "import torch",
        "from PIL import Image, ImageOps",
        "",
        f'image = ImageOps.exif_transpose(Image.open("FILE")).convert({mode})',
        *code,
        "pixels = np.asarray(image, dtype=np.float32)"
        f".reshape({size.height}, {size.width}, {settings.channels}).transpose(2, 0, 1) / 255",
        f"mean, std = np.reshape({mean}, (-1, 1, 1)), np.reshape({std}, (-1, 1, 1))",
        "images = torch.from_numpy((pixels - mean) / std).float()[None]",
    ]
    return [words, _code("python", lines)]


def _shape(manifest: Manifest) -> str:
    """Return the shape of a batch of images in words."""
    return f"[B, {', '.join(map(str, manifest.shape))}]"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {text} |" for label, text in rows)])


def _code(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *(line.replace("```", "'''") for line in lines), "```"])


def _one_line(text: str) -> str:
    return printable(shortened(text, 2000)).replace("`", "'")


def _cell(text: str) -> str:
    """Write a text that may be a stranger's into a cell of a table."""
    escaped = printable(shortened(text, 500)).replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("`", "'")
