"""Processes that compute their shares of every batch beside this one.

A step sends one byte to each worker and gets one line back; everything else passes through shared memory. Whatever
ends a worker closes its pipe, and is seen at once; one that hangs is given up after a while.
"""

import math
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO

import numpy as np
import onnx

from onnxadmm.child_process import command, ending, environment
from onnxadmm.errors import WorkerError
from onnxadmm.runtime.custom_ops import paths_in_use
from onnxadmm.train.workers.memory import SharedBlock
from onnxadmm.train.workers.order import DONE, FAILED, READY, Order, write_order
from onnxadmm.train.workers.parts import Frame

#: What a worker runs.
PROGRAM = ("-m", "onnxadmm.train.workers.child")
#: Seconds a worker may take to start, and for one step, at least.
START_PATIENCE = 120.0
STEP_PATIENCE = 20.0
#: A step may take this many times as long as the slowest one so far.
_SLOWER = 20.0
WAY_OUT = "--resume continues from the checkpoint; --workers 1 runs without them"


class _Worker:
    """A running worker and the thread that reads its answers."""

    def __init__(self, number: int, block: SharedBlock, memory: SharedBlock, answers: "_Answers") -> None:
        self.number = number
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker is
        try:
            self.process = subprocess.Popen(
                [*command(*PROGRAM), block.key, str(block.memory.size), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr,
                bufsize=0,
                env=environment(),
                pass_fds=(*block.descriptors, *memory.descriptors),
            )
        except BaseException:
            self.stderr.close()
            raise
        # The thread holds neither this object nor the process: when both are forgotten the worker sees its pipe end.
        threading.Thread(target=_read, args=(number, self.process.stdout, answers), daemon=True).start()

    def send(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b".")

    def end(self) -> None:
        """Kill it; it holds nothing that others have not."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.stderr.close()

    def obituary(self) -> str:
        """How it ended."""
        status = self.process.wait(timeout=5.0)
        self.stderr.seek(0)
        return ending(status, self.stderr.read())


_Answers = queue.SimpleQueue[tuple[int, bytes]]


def _read(number: int, pipe: IO[bytes], answers: _Answers) -> None:
    with pipe:
        for line in pipe:
            answers.put((number, line.rstrip(b"\n")))
    answers.put((number, b""))


class WorkerPool:
    """Workers 1 to N - 1 of a step; this process is number 0.

    Args:
        frame: of the step.
        models: gradient graph of each size of part.
        memory: holds the arrays of ``frame.sections``; no further process can attach afterwards.
        threads: intra-op threads of each.

    Raises:
        WorkerError: one does not start.
    """

    def __init__(
        self, frame: Frame, *, models: Mapping[int, onnx.ModelProto], memory: SharedBlock, threads: int
    ) -> None:
        self._count = len(frame.cut)
        self._answers: _Answers = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._slowest = 0.0
        needed = {part.size for parts in frame.cut[1:] for part in parts}
        serialised = {size: models[size].SerializeToString() for size in needed}
        told = Order(frame, memory.key, memory.memory.size, threads, serialised, tuple(paths_in_use()))
        order = write_order(told)
        # Held until the workers have read it: on Windows memory that nobody holds is gone.
        self._order: SharedBlock | None = SharedBlock(len(order))
        self._order.memory[:] = np.frombuffer(order, np.uint8)
        try:
            for number in range(1, self._count):
                self._workers[number] = self._start(number, self._order, memory)
        except BaseException:
            self.close()
            raise
        finally:
            self._order.release()
            memory.release()

    @property
    def processes(self) -> tuple[int, ...]:
        """Identifiers of the running processes."""
        return tuple(worker.process.pid for worker in self._workers.values())

    def wait_until_ready(self) -> None:
        """Wait until every worker has opened its sessions.

        Raises:
            WorkerError: one did not.
        """
        try:
            self._wait(READY, START_PATIENCE)
        except BaseException:
            self.close()
            raise
        finally:
            self._order = None

    def step(self, own: Callable[[], None]) -> None:
        """Let the workers compute their shares while this process computes its own.

        Raises:
            WorkerError: a worker died, failed or hangs; all are ended.
        """
        try:
            start = time.monotonic()
            self._send()
            own()
            slowest = max(self._slowest, time.monotonic() - start)
            self._wait(DONE, max(STEP_PATIENCE, _SLOWER * slowest))
            self._slowest = max(self._slowest, time.monotonic() - start)
        except BaseException:
            # Half a step cannot be taken up again.
            self.close()
            raise

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _start(self, number: int, block: SharedBlock, memory: SharedBlock) -> _Worker:
        try:
            return _Worker(number, block, memory, self._answers)
        except OSError as error:
            raise WorkerError(
                f"worker {number + 1} of {self._count}",
                expected="a process that starts",
                found=str(error),
                way_out=WAY_OUT,
            ) from error

    def _send(self) -> None:
        if not self._workers:
            raise WorkerError(
                f"{self._count} workers", expected="running processes", found="none, they were ended", way_out=WAY_OUT
            )
        for number, worker in self._workers.items():
            try:
                worker.send()
            except OSError:
                raise self._failure(number, b"") from None

    def _wait(self, expected: bytes, patience: float) -> None:
        missing = set(self._workers)
        # In short turns, so that time in which this process itself was stopped counts as one of them.
        turn = min(1.0, patience)
        turns = math.ceil(patience / turn)
        while missing:
            try:
                number, answer = self._answers.get(timeout=turn)
            except queue.Empty:
                turns -= 1
                if not turns:
                    raise self._silence(min(missing), patience) from None
                continue
            if answer != expected:
                raise self._failure(number, answer)
            missing.discard(number)

    def _silence(self, number: int, patience: float) -> WorkerError:
        return self._error(number, f"none within {patience:.3g} s")

    def _failure(self, number: int, answer: bytes) -> WorkerError:
        """What an answer other than the expected one means; the empty one is the end of the pipe."""
        worker = self._workers[number]
        if answer:
            return self._error(number, answer.removeprefix(FAILED).decode(errors="replace")[:400])
        try:
            return self._error(number, worker.obituary())
        except subprocess.TimeoutExpired:
            return self._error(number, "a closed pipe")

    def _error(self, number: int, found: str) -> WorkerError:
        return WorkerError(
            f"worker {number + 1} of {self._count} (process {self._workers[number].process.pid})",
            expected="an answer",
            found=found.rstrip("."),
            way_out=WAY_OUT,
        )
