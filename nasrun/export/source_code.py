"""A trained network as one readable Python file that imports torch alone."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import nn

from nasrun.errors import UserError
from nasrun.export.forward import Body, shape_of
from nasrun.export.layers import (
    POINTWISE,
    WIDTH,
    Expression,
    Number,
    layer,
    listed,
    named,
    quoted,
    text,
)
from nasrun.export.recording import Call, Frame, UnwritableError, Weight, parts_of, record

NETWORK = "Network"
"""Name of the class of the whole network in the written file."""

MIN_SHARED_CHARACTERS = 80
"""Length of a sequence of layers from which on equal ones share a class."""

MAX_NAMED_LAYERS = 5
"""Layers of a sequence that is named after them."""

RESERVED = (NETWORK, "Pointwise", "Tensor", "Path")
"""Names that the written file uses itself."""


def write_classes(network: nn.Module, shape: tuple[int, int, int]) -> str:
    """Write the classes of a network; the last one is ``Network``, with the same state.

    Modules that differ in whole numbers alone share a class, which takes these numbers. Parts that
    nothing needs, such as an auxiliary head, are left out.
    network: in evaluation mode, on the CPU. shape: of an image, [C, H, W].
    Raises UnwritableError if the network does something that cannot be written down.
    """
    try:
        root = record(network, shape, lambda module: layer(module) is not None)
        written = _Writer(root).classes()
    except UserError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UnwritableError(f"{type(error).__name__}: {error}") from error
    helper = [POINTWISE] if any("Pointwise(" in one for one in written) else []
    return "\n\n".join([*helper, *written])


@dataclass
class _Class:
    """A class of the file, and the modules that are instances of it.

    sequence: an ``nn.Sequential`` instead of attributes and a body.
    """

    name: str
    attributes: list[tuple[str, Expression]]
    arguments: list[str]
    body: list[str]
    sequence: Expression | None = None
    frames: list[Frame] = field(default_factory=list)
    numbers: list[list[Number]] = field(default_factory=list)
    sequences: list[Expression] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """The places of its instances in the network."""
        return [frame.path for frame in self.frames]


class _Writer:
    """Writes the classes of a recorded network, those inside of others first."""

    def __init__(self, root: Frame) -> None:
        self.root = root
        self.modules = dict(root.module.named_modules())
        self.called: dict[str, Frame] = {}
        self.weights: dict[str, dict[str, Weight]] = {}  # by module and name
        self.used: set[str] = set()  # modules that are called, or that hold what is used
        self.expressions: dict[str, Expression] = {}
        self.names = Counter(dict.fromkeys(RESERVED, 1))
        for frame in root.frames():
            self.called.setdefault(frame.path, frame)
            self._use(frame.path)
            for item in frame.items:
                if isinstance(item, Call):
                    for weight in _weights((*item.args, *item.kwargs.values())):
                        owner, _, name = weight.name.rpartition(".")
                        self.weights.setdefault(owner, {})[name] = weight
                        self._use(owner)

    def _use(self, path: str) -> None:
        while path and path not in self.used:
            self.used.add(path)
            path = path.rpartition(".")[0]

    def classes(self) -> list[str]:
        """Return the text of each class."""
        frames = [frame for frame in self.root.frames() if not frame.leaf]
        heights = self._heights()
        written = []
        for height in sorted(set(heights.values())):
            found: dict[tuple[object, ...], _Class] = {}
            for frame in frames:
                if heights[frame.path] == height:
                    self._add_in_turn(found, frame) if frame.in_turn else self._add(found, frame)
            for one in found.values():
                if one.sequence is not None and not self._deserves_a_class(one):
                    self.expressions |= dict(zip(one.paths, one.sequences, strict=True))
                else:
                    written.append(self._finished(one))
        return written

    def _add_in_turn(self, found: dict[tuple[object, ...], _Class], frame: Frame) -> None:
        """Add an ``nn.Sequential``, which gets a class of its own if there are several alike."""
        module = frame.module
        parts = [self._part(_joined(frame.path, name)) for name, _ in module.named_children()]
        whole = listed("nn.Sequential(", parts, ")")
        name = _name_of(module, frame.path)
        key = ("nn.Sequential", whole.skeleton())
        known = found.setdefault(key, _Class(name, [], [], [], sequence=whole))
        known.frames.append(frame)
        known.sequences.append(whole)
        known.numbers.append(list(whole.numbers()))

    def _deserves_a_class(self, one: _Class) -> bool:
        """Tell whether a sequence is long, and stands in several places."""
        assert one.sequence is not None  # asked of sequences alone  # noqa: S101
        long = len(one.sequence.written(0, sys.maxsize)) > MIN_SHARED_CHARACTERS
        return long and len(set(one.paths)) > 1

    def _heights(self) -> dict[str, int]:
        """Return how many levels of classes stand in each module, itself included."""
        heights: dict[str, int] = {}
        for path in sorted(self.called, key=lambda path: -path.count(".") if path else 1):
            frame, below = self.called[path], f"{path}." if path else ""
            inner = [heights[other] for other in heights if other.startswith(below)]
            own = 0 if frame.leaf else 1
            heights[path] = max(inner, default=0) + own
        return heights

    def _add(self, found: dict[tuple[object, ...], _Class], frame: Frame) -> None:
        top = frame is self.root
        attributes = list(self._attributes(frame.path))
        body = Body(
            frame,
            lambda path: self._access(frame.path, path),
            lambda weight: self._access(frame.path, weight.name),
            top=top,
        )
        arguments, lines = body.lines()
        name = NETWORK if top else type(frame.module).__name__.strip("_") or "Part"
        skeletons = tuple((key, expression.skeleton()) for key, expression in attributes)
        key = (name, skeletons, tuple(arguments), tuple(lines))
        known = found.setdefault(key, _Class(name, attributes, arguments, lines))
        known.frames.append(frame)
        known.numbers.append([n for _, one in attributes for n in one.numbers()])

    def _finished(self, one: _Class) -> str:
        """Name the class and its parameters; returns its text."""
        self.names[one.name] += 1
        name = one.name if self.names[one.name] == 1 else f"{one.name}{self.names[one.name]}"
        name = NETWORK if one.frames[0] is self.root else name
        parameters: dict[tuple[int, ...], str] = {}  # by their values in all modules
        first: list[int] = []  # the number that each parameter stands for at first
        kinds: Counter[str] = Counter()
        words = []
        for index, column in enumerate(zip(*one.numbers, strict=True)):
            values = tuple(number.value for number in column)
            number = column[0]
            if len(set(values)) == 1:
                words.append(str(number.value // 2 if number.half else number.value))
                continue
            if values not in parameters:
                kinds[number.kind] += 1
                count = kinds[number.kind]
                parameters[values] = number.kind if count == 1 else f"{number.kind}{count}"
                first.append(index)
            words.append(parameters[values] + (" // 2" if number.half else ""))
        for frame, numbers in zip(one.frames, one.numbers, strict=True):
            pieces: list[str | Number] = [f"{name}("]
            for place, index in enumerate(first):
                pieces += [", "] * (place > 0)
                pieces.append(Number(numbers[index].kind, numbers[index].value))
            expression = text(*pieces, ")")
            if self.expressions.setdefault(frame.path, expression) != expression:
                raise UnwritableError(f"its module {frame.path} is used in two different ways")
        return self._text(one, name, parameters.values(), iter(words))

    def _text(self, one: _Class, name: str, parameters: Iterable[str], words: Iterator[str]) -> str:
        base = "nn.Module" if one.sequence is None else "nn.Sequential"
        lines = [f"class {name}({base}):", f'    """{self._about(one)}"""', ""]
        takes = "".join(f", {parameter}: int" for parameter in parameters)
        if one.sequence is not None:
            filled = Expression(("super().__init__(",), one.sequence.parts, ")").filled(words)
            lines += [f"    def __init__(self{takes}) -> None:", f"        {filled.written(8)}"]
            return "\n".join(lines) + "\n"
        if one.attributes:
            lines += [f"    def __init__(self{takes}) -> None:", "        super().__init__()"]
            for key, expression in one.attributes:
                if not key.isidentifier():
                    raise UnwritableError(f"it has a part called {key!r}")
                start = f"self.{key} = "
                filled = expression.filled(words)
                lines.append(f"        {start}{filled.written(8, before=len(start))}")
            lines.append("")
        arguments = "".join(f", {argument}: Tensor" for argument in one.arguments)
        result = "Tensor" if len(one.frames[0].outputs) == 1 else "tuple[Tensor, ...]"
        lines.append(f"    def forward(self{arguments}) -> {result}:")
        return "\n".join([*lines, *(f"        {line}" for line in one.body)]) + "\n"

    def _about(self, one: _Class) -> str:
        frame = one.frames[0]
        ways = {
            " and ".join(map(shape_of, found.inputs))
            + " -> "
            + " and ".join(map(shape_of, found.outputs))
            for found in one.frames
        }
        shapes = f": {ways.pop()}" if len(ways) == 1 else ""
        if frame is self.root:
            return f"Images to logits{shapes}."
        unsafe = str.maketrans({'"': "'", "\\": "/"})
        places = [path.translate(unsafe) for path in dict.fromkeys(one.paths)]
        for count in range(min(len(places), 4), 0, -1):
            more = f" and {len(places) - count} more" if count < len(places) else ""
            shown = ", ".join(places[:count]) + more
            for end in (f"{shapes}.", "."):
                if len(shown) + len(end) <= WIDTH - 12:
                    return shown + end
        return f"{len(places)} modules."

    def _attributes(self, path: str) -> Iterator[tuple[str, Expression]]:
        """Yield the parts of a module that are used, by name, and its own weights."""
        module = self.modules[path]
        for name, _ in module.named_children():
            inner = _joined(path, name)
            if inner in self.used:
                yield name, self._expression(inner)
        for name, weight in self.weights.get(path, {}).items():
            yield name, _tensor(weight)

    def _expression(self, path: str) -> Expression:
        """Write the constructor of a used module, or of a container of used modules."""
        module, frame = self.modules[path], self.called.get(path)
        if frame is None:
            return self._container(path)
        if frame.leaf:
            found = layer(module)
            assert found is not None  # that is what makes it a leaf  # noqa: S101
            return found
        return self.expressions[path]

    def _part(self, path: str) -> Expression:
        if path in self.called:
            return self._expression(path)
        found = layer(self.modules[path])
        return found if found is not None else text("nn.Identity()")

    def _container(self, path: str) -> Expression:
        module = self.modules[path]
        if isinstance(module, nn.ParameterDict):
            weights = self.weights[path].items()
            pairs = named([(name, _tensor(weight)) for name, weight in weights])
            return listed("nn.ParameterDict({", pairs.parts, "})")
        if path in self.weights:
            raise UnwritableError(f"it uses a weight of {path} without calling that module")
        attributes = list(self._attributes(path))
        if self._is_list(path):
            return listed("nn.ModuleList([", [one for _, one in attributes], "])")
        return named(attributes)

    def _is_list(self, path: str) -> bool:
        names = [name for name, _ in self.modules[path].named_children()]
        every = all(_joined(path, name) in self.used for name in names)
        return every and names == [str(index) for index in range(len(names))]

    def _access(self, frame: str, path: str) -> str:
        """Write how the code of the module ``frame`` reaches the module or weight ``path``."""
        if frame and not path.startswith(f"{frame}."):
            raise UnwritableError(f"{frame} uses {path}, which is no part of it")
        at, written = frame, "self"
        for part in path[len(frame) + 1 if frame else 0 :].split("."):
            holder = self.modules[at]
            if at != frame and at not in self.called:
                by_number = not isinstance(holder, nn.ParameterDict) and self._is_list(at)
                written += f"[{part}]" if by_number else f"[{quoted(part)}]"
            elif part.isidentifier():
                written += f".{part}"
            elif isinstance(holder, nn.Sequential):
                written += f"[{part}]"
            else:
                raise UnwritableError(f"{path} has no name that Python can write")
            at = _joined(at, part)
        return written


def _name_of(sequence: nn.Module, path: str) -> str:
    """Name a sequence by its class, the attribute that holds it, or its layers.

    ``ReluConvNorm``, for example, and ``Twice...`` if the layers repeat themselves.
    """
    if type(sequence) is not nn.Sequential:
        return type(sequence).__name__.strip("_")
    attribute = path.rpartition(".")[2]
    if attribute.isidentifier():
        return attribute.title().replace("_", "")
    words = {"Conv2d": "Conv", "Pointwise": "Conv", "Depthwise": "Conv", "BatchNorm2d": "Norm"}
    names = [type(module).__name__.strip("_") for module in sequence.children()]
    names = [words.get(name, name).replace("ReLU", "Relu") for name in names]
    half = len(names) // 2
    if half and names[:half] == names[half:]:
        return "Twice" + "".join(names[:half])
    return "".join(names) if len(names) <= MAX_NAMED_LAYERS else "Layers"


def _tensor(weight: Weight) -> Expression:
    made = f"torch.empty({', '.join(map(str, weight.shape)) or '()'})"
    return text(f"nn.Buffer({made})" if weight.buffer else f"nn.Parameter({made})")


def _weights(value: object) -> Iterator[Weight]:
    if isinstance(value, Weight):
        yield value
    for part in parts_of(value):
        yield from _weights(part)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
