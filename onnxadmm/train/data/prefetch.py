"""Batches made ahead of training: decoding, augmentation and the teacher's answers run beside the training step."""

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


def prefetch(
    items: Iterator[T], *, depth: int = 2, on_wait: Callable[[float], object] | None = None
) -> Generator[T, None, None]:
    """Go through ``items`` in a thread of its own, at most ``depth`` of them ahead of whoever reads.

    Order and values are those of ``items``. The thread ends when ``items`` end, when they raise (the reader gets the
    exception, at its place), or when the generator is closed.

    Args:
        items: nobody else may read it from now on.
        depth: items that are made and not yet read; at least 1.
        on_wait: given the seconds that the reader waited, for each item.
    """
    if depth < 1:
        raise ValueError(f"depth: expected at least 1, found {depth}")
    made: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # whatever it is, it is the reader's to handle
            put(_Failure(error))

    # The thread opens its sessions with the custom-operator libraries of whoever reads.
    context = contextvars.copy_context()
    producer = threading.Thread(target=context.run, args=(produce,), name="batches-ahead", daemon=True)
    producer.start()
    try:
        while (item := _taken(made, on_wait)) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]  # the queue holds what ``items`` gave
    finally:
        stopped.set()
        producer.join()


def _taken(made: queue.Queue[object], on_wait: Callable[[float], object] | None) -> object:
    begin = time.perf_counter()
    item = made.get()
    if on_wait is not None:
        on_wait(time.perf_counter() - begin)
    return item


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
