"""The largest memory of this process and of those it has started, held against memory that is taken on purpose."""

import subprocess
import sys

import pytest

from onnxadmm.child_process import command, environment
from onnxadmm.runtime import resident
from onnxadmm.runtime.resident import Gauge

SIZE = 200_000_000
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process had")


@on_linux
def test_memory_that_was_freed_is_seen_until_it_is_reset() -> None:
    # In a process of its own: resetting changes what others read of this one.
    code = f"""
from onnxadmm.runtime.resident import Gauge
import numpy as np
gauge = Gauge()
gauge.reset()
before = gauge.peak()
array = np.ones({SIZE}, np.uint8)
del array
after = gauge.peak()
gauge.reset()
print(after - before, gauge.peak() - before)
"""
    done = subprocess.run(command("-c", code), env=environment(), capture_output=True, text=True, check=True)
    taken, left = map(int, done.stdout.split())
    assert taken == pytest.approx(SIZE, rel=0.1)
    assert left < SIZE / 2


@on_linux
def test_children_and_theirs_are_counted() -> None:
    hold = f"import sys, numpy as np; array = np.ones({SIZE}, np.uint8); print(1, flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    gauge = Gauge()
    before = gauge.peak()
    with subprocess.Popen(
        command("-c", outer), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert gauge.peak() - before > SIZE
        process.communicate()


def test_a_system_that_does_not_say_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident.sys, "platform", "darwin")
    assert Gauge().peak() == 0
