"""Batches ahead of training: the same ones in the same order, errors in their place, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest

from onnxadmm.train.data.prefetch import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches-ahead"]


def test_items_come_in_their_order() -> None:
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch(iter(()))) == []
    assert not threads()


def test_items_are_made_while_the_reader_works_but_no_more_than_asked() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    reader = prefetch(items(), depth=2)
    assert next(reader) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # one read, two waiting, one in the hand of the thread
    reader.close()
    assert not threads()


def test_an_error_reaches_the_reader_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    reader = prefetch(items())
    assert next(reader) == 1
    with pytest.raises(KeyError, match="lost"):
        next(reader)
    assert not threads()


def test_the_thread_ends_when_the_reader_stops_early() -> None:
    for number in (reader := prefetch(iter(range(1_000_000)))):
        if number == 3:
            break
    reader.close()
    assert not threads()


def test_a_depth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(prefetch(iter("a"), depth=0))


def test_the_reader_is_told_how_long_it_waited() -> None:
    def slowly() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.05)
            yield number

    waits: list[float] = []
    assert list(prefetch(slowly(), on_wait=waits.append)) == [0, 1, 2]
    assert len(waits) == 4  # and for the end
    assert sum(waits) > 0.1
