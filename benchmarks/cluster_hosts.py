"""Two hosts on one machine: network namespaces with addresses of their own, and a link as slow as one says.

Linux and root. The link is a pair of TAP devices, one in each namespace; a process in between hands frames on, each
after the time that it takes on the link: what was sent before it, its own bits, and the delay. So no queueing
discipline of the kernel is needed (netem is none of those that every kernel has). Each host has folders ``/tmp`` and
``/dev/shm`` of its own, so that the two Rays share nothing but the link.
"""

import heapq
import json
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from onnxadmm.run.recipe import Recipe

ROOT: Final = Path(__file__).resolve().parents[1]
SPACES: Final = ("onnxadmm-a", "onnxadmm-b")
ADDRESSES: Final = ("10.99.7.1", "10.99.7.2")
PORT: Final = 6399
MBITS: Final = 100.0
DELAY: Final = 0.020
#: Bytes of a frame: few large ones, since a process hands each of them on.
_MTU: Final = 9000
_QUEUE: Final = 4 << 20
_TUNSETIFF: Final = 0x400454CA
_TAP_WITHOUT_HEADER: Final = 0x0002 | 0x1000

Result = dict[str, Any]


class Link(threading.Thread):
    """Hands frames from one device to the other.

    Args:
        rate: bits a second; None: as fast as it goes.
        delay: seconds of each way.

    Attributes:
        carried: bytes in each direction.
    """

    def __init__(self, devices: tuple[int, int], rate: float | None, delay: float) -> None:
        super().__init__(name="link", daemon=True)
        self._devices, self._rate, self._delay = devices, rate, delay
        self.carried = [0, 0]
        self._over = threading.Event()

    def run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        free = [0.0, 0.0]
        number = 0
        with selectors.DefaultSelector() as selector:
            for side, device in enumerate(self._devices):
                os.set_blocking(device, False)
                selector.register(device, selectors.EVENT_READ, side)
            while not self._over.is_set():
                now = time.monotonic()
                pause = min(0.1, max(0.0, waiting[0][0] - now)) if waiting else 0.1
                for key, _ in selector.select(pause):
                    side = key.data
                    with suppress(BlockingIOError):
                        while True:
                            frame = os.read(key.fd, 65536)
                            now = time.monotonic()
                            takes = 8 * len(frame) / self._rate if self._rate else 0.0
                            if self._rate and (free[side] - now) * self._rate / 8 > _QUEUE:
                                continue  # the queue is full: dropped, as a switch does
                            free[side] = max(free[side], now) + takes
                            number += 1
                            heapq.heappush(waiting, (free[side] + self._delay, number, side, frame))
                now = time.monotonic()
                while waiting and waiting[0][0] <= now:
                    _, _, side, frame = heapq.heappop(waiting)
                    self.carried[side] += len(frame)
                    with suppress(BlockingIOError):
                        os.write(self._devices[1 - side], frame)

    def end(self) -> None:
        """Stop, and close the devices."""
        self._over.set()
        self.join()
        for device in self._devices:
            os.close(device)


def _run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def _inside(space: str, script: str) -> list[str]:
    """A shell command on a host: ``ip netns exec`` gives it a table of mounts of its own."""
    own = "mount -t tmpfs tmpfs /tmp && mount -t tmpfs -o size=2g tmpfs /dev/shm && ip link set lo up"
    return ["ip", "netns", "exec", space, "sh", "-c", f"{own} && {script}"]


def _tap(name: str) -> int:
    import fcntl
    import struct

    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP_WITHOUT_HEADER))
    return device


@contextmanager
def link(rate: float | None, delay: float) -> Iterator[Link]:
    """Two hosts and the link between them, for as long as the block lasts."""
    for space in SPACES:
        subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
    devices = []
    try:
        for space, address in zip(SPACES, ADDRESSES, strict=True):
            name = space[:4] + space[-2:]
            devices.append(_tap(name))
            _run("ip", "netns", "add", space)
            _run("ip", "link", "set", name, "netns", space)
            inside = ("ip", "-n", space)
            _run(*inside, "addr", "add", f"{address}/24", "dev", name)
            _run(*inside, "link", "set", name, "mtu", _MTU, "up")
            _run(*inside, "link", "set", "lo", "up")
        made = Link((devices[0], devices[1]), rate, delay)
        made.start()
        try:
            yield made
        finally:
            made.end()
    finally:
        for space in SPACES:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


_SERVER: Final = """
import socket
listening = socket.create_server(("%s", 5001))
print("ready", flush=True)
for _ in range(7):
    one, _ = listening.accept()
    while one.recv(1 << 16):
        pass
    one.close()
"""
_CLIENT: Final = """
import socket, time
def connected():
    begin = time.perf_counter()
    return socket.create_connection(("%s", 5001)), time.perf_counter() - begin
trips = []
for _ in range(6):
    one, seconds = connected()
    trips.append(seconds)
    one.close()
one, _ = connected()
begin = time.perf_counter()
one.sendall(bytes(5_000_000))
one.shutdown(socket.SHUT_WR)
one.recv(1)
print(sorted(trips)[2], 5_000_000 / (time.perf_counter() - begin))
"""


def tried() -> tuple[float, float]:
    """Seconds that a connection takes, which is one way and back, and bytes a second of a long message."""
    inside = [["ip", "netns", "exec", space, sys.executable, "-c"] for space in SPACES]
    with subprocess.Popen([*inside[1], _SERVER % ADDRESSES[1]], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        echo, bandwidth = _run(*inside[0], _CLIENT % ADDRESSES[1]).split()
    return float(echo), float(bandwidth)


def measured(train: Path, model: Path, *, rate: float | None, delay: float, steps: int) -> Result:
    """Train over two hosts with so many steps a round; return what rounds took, and what the link carried."""
    python = sys.executable
    start = (
        f"{python} -c 'import sys; from ray.scripts.scripts import main; sys.exit(main())' start --num-cpus=1 --block"
    )
    quiet = "--disable-usage-stats --include-dashboard=false"
    # What would go through a proxy does not reach the other host.
    own_ways = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    environment = {**own_ways, "PYTHONPATH": str(ROOT), **ray}
    with link(rate, delay) as between, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        out = Path(folder) / "result.json"
        own = f"{python} -m benchmarks.cluster_hosts {train} {model} {out} {steps}"
        head = f"({start} --head {quiet} --node-ip-address={ADDRESSES[0]} --port={PORT} >/dev/null 2>&1 &) && {own}"
        worker = f"{start} --disable-usage-stats --address={ADDRESSES[0]}:{PORT} --node-ip-address={ADDRESSES[1]}"
        echo, bandwidth = tried()
        first = subprocess.Popen(_inside(SPACES[0], head), env=environment, cwd=ROOT, start_new_session=True)
        time.sleep(8)
        log = (Path(folder) / "worker.txt").open("w")
        second = subprocess.Popen(
            _inside(SPACES[1], worker), env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if first.wait(timeout=400):
                raise RuntimeError(f"the run on two hosts failed: {(Path(folder) / 'worker.txt').read_text()[-2000:]}")
        finally:
            log.close()
            for space in SPACES:  # all that runs there, and nothing else
                for process in _run("ip", "netns", "pids", space).split():
                    with suppress(ProcessLookupError):
                        os.kill(int(process), 9)
            first.wait()
            second.wait()
        found: Result = json.loads(out.read_text())
        return {**found, "echo": echo, "bandwidth": bandwidth, "carried": between.carried, "rate": rate, "delay": delay}


def hosts(data: Path, models: Path) -> Result:
    """Measure rounds of several lengths over a fast link and over a slow one."""
    import numpy as np

    from benchmarks.cluster import mnist

    (images, labels), _ = mnist(data)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        train = Path(folder) / "train.npz"
        np.savez(train, images=images, labels=labels)
        model = models / "lenet5_mnist.onnx"
        runs = [
            measured(train, model, rate=rate, delay=delay, steps=steps)
            for rate, delay in ((None, 0.0), (1e6 * MBITS, DELAY))
            for steps in (1, 4, 16)
        ]
    return {"runs": runs}


def inside(train: str, model: str, out: str, steps: str) -> None:
    """Train from within the first host, once the second has joined; write what rounds took."""
    from unittest.mock import patch

    import ray

    import onnxadmm as oa
    from benchmarks.cluster import Timed, cost_of

    until = time.monotonic() + 120
    while True:
        with suppress(ConnectionError):
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
            known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # of Ray
            nodes = [node["NodeManagerAddress"] for node in known if node["Alive"]]
            ray.shutdown()
            if len(nodes) == 2:
                break
        if time.monotonic() > until:
            raise TimeoutError("the second host has not joined")
        time.sleep(0.5)
    recipe = Recipe(epochs=2, retrain_epochs=2, workers=1, cluster="auto", local_steps=int(steps))
    with patch("onnxadmm.run.beginning.Rounds", Timed):
        result = oa.compress(
            model,
            data=train,
            budget={"params": 0.5},
            preprocessing=oa.Preprocessing(mean=[0.1307], std=[0.3081]),
            recipe=recipe,
            bench=False,
        )
    course = Timed.kept[-1]
    found = {**cost_of(result), "nodes": nodes, "steps": course.steps, "bytes": course.bytes, "asked": int(steps)}
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    inside(*sys.argv[1:])
