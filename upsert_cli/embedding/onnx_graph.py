"""The outputs, the external files and the weights of an ONNX graph, read from its file without a library.

ONNX is a protocol buffer. Each field is a key, followed by a number or by a length and bytes, so weights are skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Numbers of fields in onnx.proto.
_GRAPH = 7  # of a model
_INITIALIZER, _OUTPUT = 5, 12  # of a graph
_TENSOR_NAME, _RAW_DATA, _EXTERNAL_DATA = 8, 9, 13  # of an initializer
_NAME, _TYPE = 1, 2  # of an output
_TENSOR, _SHAPE, _DIMENSION, _SIZE = 1, 2, 1, 1  # the nested fields from a type to the size of a dimension
_KEY, _VALUE = 1, 2  # of an entry of external data

_VARINT, _BYTES = 0, 2  # wire types
_FIXED_SIZES = {1: 8, 5: 4}  # bytes of a value, by the other wire types
_MORE = 0x80  # the bit of each byte of a number but the last

Shape: TypeAlias = tuple[int | None, ...] | None
"""The sizes of a tensor's dimensions, with None for a size that varies; None if the file lacks the shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """The parts of an ONNX graph that a caller needs to use it and to compare it."""

    outputs: dict[str, Shape]
    """The shapes of its outputs, by name."""

    external_files: tuple[str, ...]
    """Files with weights, relative to the folder of the graph."""

    tensors: dict[str, memoryview]
    """The bytes of the weights in the file of the graph, by name."""


def read_graph(path: Path) -> OnnxGraph:
    """Read the parts of a graph; the weights are mapped, and read from the disk at their first use.

    Raises:
        ValueError: The file is not an ONNX graph.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # closed with the last view of it
    try:
        graph = _read(mapped)
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("it is not an ONNX graph") from error
    if not graph.outputs:
        raise ValueError("it is not an ONNX graph, or one without outputs")
    return graph


def _read(model: memoryview) -> OnnxGraph:
    outputs: dict[str, Shape] = {}
    files: dict[str, None] = {}
    tensors: dict[str, memoryview] = {}
    for graph in _parts(model, _GRAPH):
        for number, value in _fields(graph):
            if number == _OUTPUT:
                [name] = _parts(value, _NAME)
                outputs[bytes(name).decode()] = _shape(value)
            elif number == _INITIALIZER:
                files |= dict.fromkeys(_external_files(value))
                fields = dict(_fields(value))
                tensor, content = fields.get(_TENSOR_NAME), fields.get(_RAW_DATA)
                if isinstance(tensor, memoryview) and isinstance(content, memoryview):
                    tensors[bytes(tensor).decode()] = content
    return OnnxGraph(outputs=outputs, external_files=tuple(files), tensors=tensors)


def _shape(output: int | memoryview) -> Shape:
    for kind in _parts(output, _TYPE):
        for tensor in _parts(kind, _TENSOR):
            for shape in _parts(tensor, _SHAPE):
                return tuple(_size(dimension) for dimension in _parts(shape, _DIMENSION))
    return None


def _size(dimension: memoryview) -> int | None:
    return next((value for number, value in _fields(dimension) if number == _SIZE and isinstance(value, int)), None)


def _external_files(initializer: int | memoryview) -> Iterator[str]:
    for entry in _parts(initializer, _EXTERNAL_DATA):
        pair = {number: bytes(value).decode() for number, value in _fields(entry) if isinstance(value, memoryview)}
        if pair.get(_KEY) == "location":
            yield pair[_VALUE]


def _parts(message: int | memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the messages or texts in the fields of a message that have a number."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: int | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a message.

    Raises:
        IndexError: The message ends within a field.
        TypeError: The message is a number, or a field has an unknown wire type.
    """
    if isinstance(message, int):
        raise TypeError(message)
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(message, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise TypeError(wire_type)
        if at + size > len(message):
            raise IndexError(at)
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = shift = 0
    while (byte := message[at]) & _MORE:
        value |= (byte & ~_MORE) << shift
        shift, at = shift + 7, at + 1
    return value | byte << shift, at + 1
