"""What a worker runs: its share of every batch, at one byte on stdin per step.

It ends when stdin does, which is also what it sees when its parent dies.

Usage: python -m onnxadmm.train.workers.child KEY SIZE NUMBER, with the key and size of the memory block that holds the
order, and the worker's number.
"""

import os
import signal
import sys

import numpy as np

from onnxadmm.child_process import end_with_parent
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.train.workers.memory import attach, lay_out
from onnxadmm.train.workers.order import DONE, FAILED, READY, read_order
from onnxadmm.train.workers.parts import Share


def main(key: str, size: int, number: int) -> int:
    """Answer every byte on stdin until it ends, and return the exit status."""
    end_with_parent()
    # The answers have a descriptor of their own: whatever else is printed must not be taken for one.
    answers = os.dup(1)
    os.dup2(2, 1)
    # Ctrl-C goes to the whole group of processes; what it means is the parent's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            _serve(key, size, number, answers)
        except Exception as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            os.write(answers, FAILED + words.encode(errors="replace")[:1000] + b"\n")
            return 1
    except BrokenPipeError:
        pass  # the parent is gone
    return 0


def _serve(key: str, size: int, number: int, answers: int) -> None:
    order = read_order(attach(key, size))
    memory = lay_out(order.frame.sections, attach(order.memory_key, order.memory_size))
    with custom_operators(order.custom_ops, tried=True):
        share = Share(order.frame, number, models=order.models, memory=memory, threads=order.threads)
    batch = {item.name: memory[f"input/{item.name}"] for item in order.frame.inputs}
    del order  # the sessions have models of their own
    os.write(answers, READY + b"\n")
    # Denormal numbers and the like are the engine's affair; numpy only scales here.
    with np.errstate(all="ignore"):
        while os.read(0, 1):
            share.run(batch)
            os.write(answers, DONE + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
