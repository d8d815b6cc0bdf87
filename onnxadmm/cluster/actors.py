"""Machines as Ray actors: one on each node of a cluster, or some of one core each on this machine.

Ray is imported here and nowhere else, and only when a cluster is asked for. What goes over the network are numbers,
and objects of this package; Ray trusts whoever reaches its ports, and so do we.
"""

import hashlib
import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Final, Protocol, Self

from onnxadmm.cluster.address import Address, parse_address
from onnxadmm.cluster.rounds import LostError
from onnxadmm.errors import DataError, OnnxAdmmError, OptionError, WorkerError

#: Seconds within which the head of a cluster has to answer.
_PATIENCE: Final = 5.0
#: Seconds within which every machine has to be there.
_GREETING: Final = 60.0
#: How many threads numpy takes for a product, which it reads when it is loaded.
_THREADS: Final = "OMP_NUM_THREADS"


class Member(Protocol):
    """What does the work on a machine."""

    def begin(self, task: Any) -> None:
        """Begin a task; the one before is over."""
        ...

    def take(self, order: Any) -> Any:
        """Do what is asked of the task, and return the answer."""
        ...

    def end(self) -> None:
        """Give back what it holds: another takes its place."""
        ...


class Opening(Protocol):
    """What is sent to a machine in order to have a member there."""

    def open(self) -> Member: ...


class _Said:
    """An error of this package, which would not come out of a pickle as itself: its class and its four parts."""

    def __init__(self, error: OnnxAdmmError) -> None:
        self.kind = type(error)
        self.parts = {name: getattr(error, name) for name in ("thing", "expected", "found", "way_out")}

    def error(self, machine: int) -> OnnxAdmmError:
        return self.kind(**self.parts | {"thing": f"machine {machine + 1}, {self.parts['thing']}"})


class _Began:
    """A task was begun, by the process of this number on this host."""

    def __init__(self) -> None:
        self.host, self.process = socket.gethostname(), os.getpid()


class _Unknown:
    """Nothing was begun: the process is another one than was told to."""


class _Host:
    """The actor. Whatever is wrong is answered and not raised, so that an error of a call is always a lost machine."""

    def __init__(self, folder: str) -> None:
        with suppress(OSError):  # relative paths are those of the driver, where there is such a folder
            os.chdir(folder)
        self._member: Member | None = None
        self._opened = self._begun = b""

    def hello(self) -> object:
        """Say that it is there."""
        return _Began()

    def prepare(self, opening: Opening, opened: bytes, task: Any, name: bytes) -> object:
        """Open the member, where it is not or is another, and begin a task that it has not begun."""
        self._begun = b""
        try:
            if self._member is not None and self._opened != opened:
                self._member.end()
                self._member = None
            if self._member is None:
                self._member, self._opened = opening.open(), opened
            self._member.begin(task)
        except OnnxAdmmError as error:
            return _Said(error)
        except Exception as error:
            return _Said(_unforeseen(error))
        self._begun = name
        return _Began()

    def take(self, order: Any, name: bytes) -> object:
        """Do a round of a task."""
        if self._member is None or self._begun != name:
            return _Unknown()
        try:
            return self._member.take(order)
        except OnnxAdmmError as error:
            return _Said(error)
        except Exception as error:
            return _Said(_unforeseen(error))


def _unforeseen(error: Exception) -> WorkerError:
    words = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return WorkerError("its work", expected="an answer", found=words, way_out="report it, with the command")


class RayCrew:
    """Machines of a cluster, for as long as the block lasts; a ``Crew`` of ``rounds``.

    Args:
        where: as ``--cluster`` has it.

    Attributes:
        processes: host and number of the process of each machine.

    Raises:
        OptionError: Ray is missing, or nobody answers there.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._address = parse_address(where)
        self._ray = _imported()
        self._opening: tuple[Any, bytes] = None, b""
        self._tasks: dict[int, tuple[Any, bytes]] = {}
        self._owner: dict[object, int] = {}
        self._actors: list[Any] = []
        self.processes: dict[int, tuple[str, int]] = {}
        self._thread = ThreadPoolExecutor(1, "ray")

    def __enter__(self) -> Self:
        ray = self._ray
        self._started = not ray.is_initialized()
        if self._started:
            with _signals_as_they_are():
                _join(ray, self._address, self._where)
        try:
            self._actors = [ray.remote(_Host).options(**options).remote(os.getcwd()) for options in self._places()]
            self._greet()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def count(self) -> int:
        return len(self._actors)

    @property
    def is_local(self) -> bool:
        """Whether machines are processes of one core on this one."""
        return self._address.local is not None

    def settle(self, opening: Opening) -> bool:
        """Say what every machine opens, now and whenever it has to begin anew; what it has opened before it keeps.

        Returns:
            Whether that is another thing than before.

        Raises:
            DataError: it cannot be sent.
        """
        total = hashlib.sha256()
        parts: list[pickle.PickleBuffer] = []
        try:
            total.update(self._ray.cloudpickle.dumps(opening, protocol=5, buffer_callback=parts.append))
            for part in parts:
                total.update(part.raw())
            if total.digest() == self._opening[1]:
                return False
            self._opening = self._ray.put(opening), total.digest()
        except (TypeError, pickle.PicklingError, AttributeError) as error:
            raise DataError(
                "the data",
                expected="paths that every machine has, or arrays, which are sent to them",
                found=f"what cannot be sent ({' '.join(str(error).split())[:200]})",
                way_out="write the data to files, or leave --cluster out",
            ) from error
        return True

    def prepare(self, machine: int, task: Any) -> object:
        if id(task) not in self._tasks:
            # The task itself is kept, so that no other takes its place in the memory.
            self._tasks = {id(task): ((task, self._ray.put(task)), os.urandom(8))}
        (_, sent), name = self._tasks[id(task)]
        # Whatever it was asked before is of no use.
        self._owner = {ticket: owner for ticket, owner in self._owner.items() if owner != machine}
        return self._ticket(machine, self._actors[machine].prepare.remote(*self._opening, sent, name))

    def take(self, machine: int, order: Any) -> object:
        ((_, name),) = self._tasks.values()
        return self._ticket(machine, self._actors[machine].take.remote(order, name))

    def wait(self, tickets: Sequence[object], seconds: float) -> list[object]:
        if not tickets:
            return []
        wait = partial(self._ray.wait, list(tickets))
        done, _ = self._apart(partial(wait, num_returns=1, timeout=seconds))
        if len(done) < len(tickets):
            done, _ = self._apart(partial(wait, num_returns=len(tickets), timeout=0))
        return [ticket for ticket in tickets if ticket in done]

    def result(self, ticket: object) -> Any:
        machine = self._owner.pop(ticket)
        try:
            answer = self._apart(partial(self._ray.get, ticket))
        except (self._ray.exceptions.RayError, OSError) as error:
            raise LostError(str(error).strip().partition("\n")[0][:200]) from error
        if isinstance(answer, _Said):
            raise answer.error(machine)
        if isinstance(answer, _Began):
            self.processes[machine] = answer.host, answer.process
            return None
        return None if isinstance(answer, _Unknown) else answer

    def _apart(self, call: Callable[[], Any]) -> Any:
        """Call Ray in a thread of its own: what a signal raises in the midst of one Ray replaces by something else."""
        return self._thread.submit(call).result()

    def _ticket(self, machine: int, ticket: object) -> object:
        self._owner[ticket] = machine
        return ticket

    def _places(self) -> list[dict[str, Any]]:
        """Where each machine runs, as options of its actor: restarted whenever it dies, its calls never repeated."""
        always: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0}
        if self._address.local is not None:
            # Of a cluster that runs already, whoever started it says how many cores there are.
            cores = {"num_cpus": 1} if self._started else {"num_cpus": 0}
            # Ray gives an actor of one core one thread for numpy, whose sums then end in other bits than the driver's;
            # what is empty is taken for unset.
            variables = {"env_vars": {_THREADS: os.environ.get(_THREADS, "")}}
            return [{**always, **cores, "runtime_env": variables}] * self._address.local
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        own = self._ray.get_runtime_context().get_node_id()  # first, for that one sends the most
        if not nodes:
            raise _unreachable(self._where, "a cluster without a free core")
        return [
            {
                **always,
                "num_cpus": node["Resources"]["CPU"],
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=True),
            }
            for node in sorted(
                nodes, key=lambda node: (node["NodeID"] != own, node["NodeManagerAddress"], node["NodeID"])
            )
        ]

    def _greet(self) -> None:
        """Wait until all are there.

        Raises:
            OptionError: some are not, within a minute.
        """
        waiting = [self._ticket(machine, actor.hello.remote()) for machine, actor in enumerate(self._actors)]
        done, missing = self._apart(partial(self._ray.wait, waiting, num_returns=len(waiting), timeout=_GREETING))
        if missing:
            raise OptionError(
                f"--cluster {self._where}",
                expected=f"{len(waiting)} machines with free cores",
                found=f"{len(done)} within {_GREETING:g} seconds",
                way_out="look at `ray status`: other work may hold the cores",
            )
        for ticket in done:
            self.result(ticket)

    def _leave(self) -> None:
        for actor in self._actors:
            with suppress(Exception):  # the cluster may be gone
                self._ray.kill(actor, no_restart=True)
        self._actors, self._tasks, self._owner, self._opening = [], {}, {}, (None, b"")
        self._thread.shutdown()
        if self._started:
            with suppress(Exception):
                self._ray.shutdown()


def _imported() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # training is what the machine is for, here as without Ray
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # a run ends on SIGTERM as any other does
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            "--cluster", expected="Ray, which runs the machines", found="none", way_out='pip install "onnxadmm[ray]"'
        ) from error
    return ray


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Let SIGTERM mean what it meant before: Ray takes it for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # set from Python
            signal.signal(signal.SIGTERM, before)


def _join(ray: ModuleType, address: Address, where: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address.local is not None:
        ray.init(num_cpus=address.local, include_dashboard=False, **quiet)
        return
    if address.host is None:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError as error:
            raise _unreachable(where, "none that runs on this machine") from error
        except Exception as error:
            raise _unreachable(where, _brief(error)) from error
        return
    try:
        socket.create_connection((address.host, address.port), timeout=_PATIENCE).close()
    except OSError as error:
        raise _unreachable(where, f"nobody ({error.strerror or error})") from error
    try:
        ray.init(where, **quiet)
    except Exception as error:
        raise _unreachable(where, _brief(error)) from error


def _brief(error: Exception) -> str:
    told = " ".join(str(error).split())
    if "AuthToken" in told or "authentication" in told.lower():
        return "one that asks for a token: RAY_AUTH_MODE=token shows it that of ~/.ray/auth_token"
    return told.rstrip(".")[:200]


def _unreachable(where: str, found: str) -> OptionError:
    return OptionError(
        f"--cluster {where}",
        expected="a Ray cluster that answers",
        found=found,
        way_out="start one with `ray start`, or use local:N, which starts processes here",
    )
