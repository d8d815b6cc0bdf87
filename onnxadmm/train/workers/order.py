"""What workers are told at the start: a block of memory that holds a length, JSON, and the gradient graphs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.train.workers.memory import Section
from onnxadmm.train.workers.parts import Frame, Part

Bytes = NDArray[np.uint8]

#: Answers of a worker, each a line; words follow the last one.
READY, DONE, FAILED = b"ready", b"done", b"failed "

#: Bytes of the length in front.
_LENGTH = 8


@dataclass(frozen=True)
class Order:
    """The step, the block its arrays are in, and what its sessions are opened with."""

    frame: Frame
    memory_key: str
    memory_size: int
    threads: int
    custom_ops: tuple[str, ...] = ()


def write_order(order: Order, models: Mapping[int, bytes]) -> bytes:
    """Put an order and the gradient graph of each size of part into bytes."""
    frame = order.frame
    head = json.dumps(
        {
            "cut": [[[part.start, part.size, part.number] for part in parts] for parts in frame.cut],
            "weights": {name: list(shape) for name, shape in frame.weights.items()},
            "inputs": [_plain(item) for item in frame.inputs],
            "logits": _plain(frame.logits),
            "memory": [order.memory_key, order.memory_size],
            "threads": order.threads,
            "custom_ops": list(order.custom_ops),
            "models": {str(size): len(model) for size, model in models.items()},
        }
    ).encode()
    return b"".join([len(head).to_bytes(_LENGTH, "little"), head, *models.values()])


def read_order(memory: Bytes) -> tuple[Order, dict[int, bytes]]:
    """Read what ``write_order`` wrote."""
    start = _LENGTH + int.from_bytes(memory[:_LENGTH].tobytes(), "little")
    head = json.loads(memory[_LENGTH:start].tobytes())
    models: dict[int, bytes] = {}
    for size, length in head["models"].items():
        models[int(size)] = memory[start : start + length].tobytes()
        start += length
    frame = Frame(
        cut=tuple(tuple(Part(*part) for part in parts) for parts in head["cut"]),
        weights={name: tuple(shape) for name, shape in head["weights"].items()},
        inputs=tuple(_section(item) for item in head["inputs"]),
        logits=_section(head["logits"]),
    )
    key, size = head["memory"]
    return Order(frame, key, size, head["threads"], tuple(head["custom_ops"])), models


def _plain(section: Section) -> list[Any]:
    return [section.name, list(section.shape), section.dtype]


def _section(item: list[Any]) -> Section:
    return Section(item[0], tuple(item[1]), item[2])
