"""TensorBoard's files: points of curves, texts, pictures and hyper-parameters."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
from tensorboard.compat.proto.tensor_shape_pb2 import (  # type: ignore[import-untyped]
    TensorShapeProto,
)
from tensorboard.compat.proto.types_pb2 import (  # type: ignore[import-untyped]
    DT_FLOAT,
    DT_STRING,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from nasrun.run.files import open_for_writing
from nasrun.run.layout import EVENTS_PREFIX

HPARAMS_TAG = "_hparams_/session_start_info"
"""Name under which TensorBoard looks for the hyper-parameters of a run."""


class Events:
    """A new file of TensorBoard's in ``directory``.

    TensorBoard's own writer has a thread, which can only print errors of the disk. Here errors
    reach the run, and a flush hands the points to the system.
    """

    def __init__(self, directory: Path) -> None:
        name = f"{EVENTS_PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        paths = (directory / f"{name}.{number}" for number in count())
        self._file = open_for_writing(next(path for path in paths if not os.path.lexists(path)))
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def add(self, curve: str, value: float, step: int) -> None:
        """Add a point to a curve."""
        point = Summary.Value(tag=curve, simple_value=value)
        self._write(step=step, summary=Summary(value=[point]))

    def text(self, name: str, text: str) -> None:
        """Add a text in Markdown."""
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[text.encode(errors="backslashreplace")],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        self._summary(name, "text", b"", tensor)

    def image(self, name: str, png: bytes, step: int = 0) -> None:
        """Add a picture, as the bytes of a PNG file."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def hparams(self, name: str, values: Mapping[str, str]) -> None:
        """Add what tells this run from others; name: of the run, as it is shown."""
        info = SessionStartInfo(group_name=name, start_time_secs=time.time())
        for key, value in values.items():
            try:
                info.hparams[key].number_value = float(value)
            except ValueError:
                info.hparams[key].string_value = value
        content = HParamsPluginData(session_start_info=info).SerializeToString()
        nothing = TensorProto(
            dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
        )
        self._summary(HPARAMS_TAG, "hparams", content, nothing)

    def _summary(self, tag: str, plugin: str, content: bytes, tensor: TensorProto) -> None:
        data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=tensor)
        self._write(step=0, summary=Summary(value=[value]))

    def _write(self, **content: object) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def flush(self) -> None:
        """Hand the points to the system, so that other programs can read them."""
        self._file.flush()

    def sync(self) -> None:
        """Write all points to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def events_in(directory: Path) -> list[Path]:
    """Return TensorBoard's files in a directory."""
    return sorted(path for path in directory.iterdir() if path.name.startswith(EVENTS_PREFIX))
