"""What workers are told at the start, in a block of memory, and the words they answer with.

An order is pickled. Unpickling runs whatever the bytes say, so they must come from nobody but this process: they lie in
memory that only its own children attach to (see ``memory``), and a child is the same interpreter with the same modules
(see ``child_process``), so that it knows every class by the name it was pickled under.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxadmm.train.workers.parts import Frame

#: Answers of a worker, each a line; words follow the last one.
READY, DONE, FAILED = b"ready", b"done", b"failed "


@dataclass(frozen=True)
class Order:
    """The step, the block its arrays are in, the gradient graph of each size of part, and custom operators."""

    frame: Frame
    memory_key: str
    memory_size: int
    threads: int
    models: Mapping[int, bytes]
    custom_ops: tuple[str, ...] = ()


def write_order(order: Order) -> bytes:
    """Put an order into bytes."""
    return pickle.dumps(order, pickle.HIGHEST_PROTOCOL)


def read_order(memory: NDArray[np.uint8]) -> Order:
    """Read what ``write_order`` wrote."""
    order = pickle.loads(memory.data)
    assert isinstance(order, Order)
    return order
