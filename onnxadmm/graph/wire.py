"""The protobuf wire format, as far as weights need it: lift them out of a message, and stream them back in.

Parsing a whole model with protobuf costs its size twice, and reading one weight copies it again. So the large
``raw_data`` fields are cut out of the bytes before protobuf sees them, and stay where they are: in the file
(tests/graph/test_memory.py measures what that is worth).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

Buffer = memoryview

# No external data can be stored under a location with a zero byte, so this cannot be mistaken for a file.
IN_FILE = "\0"
SMALLEST_LIFTED = 1024  # bytes; below this a weight is cheaper inside the message than outside

RAW_DATA = 9
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
_LENGTH_DELIMITED = 2

# Which fields of a message hold messages that may hold weights: {message: {field number: message}}.
_CHILDREN = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DEEPEST = 64  # subgraphs within subgraphs; protobuf itself stops at 100 messages


class WireError(ValueError):
    """The bytes are not a protobuf message.

    Attributes:
        cut_off: the bytes began as a message and end in the middle of a field.
    """

    def __init__(self, message: str, *, cut_off: bool = False) -> None:
        self.cut_off = cut_off
        super().__init__(message)


@dataclass(frozen=True)
class Field:
    """One field of a message: ``data[start:end]`` with its tag, ``data[body:end]`` without."""

    number: int
    wire_type: int
    start: int
    body: int
    end: int


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """Walk over the fields of the message in ``data[start:end]``.

    Raises:
        WireError: the bytes are not a sequence of fields.
    """
    position = start
    while position < end:
        tag, body = read_varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, stop = read_varint(data, body, end)
        elif wire_type == 1:
            stop = body + 8
        elif wire_type == _LENGTH_DELIMITED:
            length, body = read_varint(data, body, end)
            stop = body + length
        elif wire_type == 5:
            stop = body + 4
        else:
            raise WireError(f"wire type {wire_type} at byte {position}")
        if number == 0:
            raise WireError(f"field number 0 at byte {position}")
        if stop > end:
            raise WireError(f"the field at byte {position} needs {stop - end} bytes more", cut_off=True)
        yield Field(number, wire_type, position, body, stop)
        position = stop


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """Return the number at ``position`` and the position behind it."""
    number = 0
    for count in range(10):
        if position + count >= end:
            raise WireError(f"a number at byte {position} has no end", cut_off=True)
        byte = data[position + count]
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number, position + count + 1
    raise WireError(f"a number at byte {position} is longer than 10 bytes")


def varint(number: int) -> bytes:
    """Encode a non-negative number."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def head(number: int, length: int) -> bytes:
    """What stands before the ``length`` bytes of a length-delimited field."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def lift_weights(data: Buffer) -> bytes:
    """Return the ``ModelProto`` in ``data`` without its large ``raw_data``.

    In their place stands external data at location ``IN_FILE`` with offset and length within ``data``.

    Raises:
        WireError: the bytes are not a protobuf message, or one that was cut off.
    """
    return b"".join(_lift(data, 0, len(data), "model", depth=0))


def _lift(data: Buffer, start: int, end: int, kind: str, *, depth: int) -> Iterator[bytes | Buffer]:
    if depth > _DEEPEST:
        raise WireError(f"messages nested more than {_DEEPEST} deep")
    children = _CHILDREN[kind]
    for field in fields(data, start, end):
        child = children.get(field.number) if field.wire_type == _LENGTH_DELIMITED else None
        if child is None or field.end - field.body < SMALLEST_LIFTED:
            yield data[field.start : field.end]
            continue
        if child == "tensor":
            content = b"".join(_lift_tensor(data, field.body, field.end))
        else:
            content = b"".join(_lift(data, field.body, field.end, child, depth=depth + 1))
        yield head(field.number, len(content))
        yield content


def _lift_tensor(data: Buffer, start: int, end: int) -> Iterator[bytes | Buffer]:
    raw: Field | None = None
    for field in fields(data, start, end):
        if field.number != RAW_DATA or field.end - field.body < SMALLEST_LIFTED:
            yield data[field.start : field.end]
        else:
            raw = field  # of a field given twice the last one counts
    if raw is not None:
        marker = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
        mark(marker, IN_FILE, raw.body, raw.end - raw.body)
        yield marker.SerializeToString()


def mark(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make ``tensor`` say that its data stand at ``location``."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, entry in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=entry)
