"""Training speed and memory beside PyTorch: the table of docs/training.md.

Run from the root of the repository: ``python -m benchmarks.train_speed --torch PYTHON --newest PYTHON``, the first
being that of an environment with the dependency group ``train-speed``, where the networks are exported, the second of
one with this package's requirements and the newest onnxruntime. Both engines train in the runtime of the training
build, the plain one in the newest as well. Every measurement is a process of its own; contenders take turns, several
rounds long, and medians over all steps of all rounds count. PyTorch runs eagerly on all cores, in both memory layouts;
this project with as many workers as there are cores, one thread each. Writes benchmarks/results/train_speed.json and
the table between the marks of docs/training.md. Linux only.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "train_speed.json"
PAGE = ROOT / "docs" / "training.md"
MARKS = ("<!-- train-speed -->", "<!-- /train-speed -->")
NETWORKS = ("lenet", "resnet20", "vgg16", "mobilenetv2", "transformer")
#: Words have no channels.
LAYOUTS = dict.fromkeys(NETWORKS, ("channels_first", "channels_last")) | {"transformer": ("channels_first",)}
#: This project's contenders: the training build's gradients, our own in its runtime, our own in the newest one.
ENGINES = ("training", "plain", "plain, newest")
#: Also measured with one worker.
ALONE = "resnet20"


@dataclass
class Contender:
    """Who trains a network.

    Attributes:
        command: of one measurement, which prints JSON with ``times`` (seconds per step) and ``version``.
        times: seconds of each step so far.
        peak: most memory so far, in bytes, of the process and those it started.
    """

    network: str
    name: str
    command: list[str]
    times: list[float] = field(default_factory=list)
    peak: int = 0
    version: str = ""

    def measure(self) -> None:
        process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        while process.poll() is None:
            self.peak = max(self.peak, resident_bytes(process.pid))
            time.sleep(0.05)
        output = process.stdout.read() if process.stdout is not None else ""
        if process.returncode:
            raise SystemExit(f"{' '.join(self.command)} ended with status {process.returncode}")
        found = json.loads(output.strip().splitlines()[-1])
        self.times += found["times"]
        self.version = found["version"]

    def row(self, batch: int) -> dict[str, Any]:
        return {
            "network": self.network,
            "contender": self.name,
            "images_per_second": batch / statistics.median(self.times),
            "fastest": batch / min(self.times),
            "steps": len(self.times),
            "peak_mb": self.peak / 1e6,
        }


def resident_bytes(session: int) -> int:
    """Resident memory of all processes of a session; pages they share count once for each."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name, which may hold anything: state, parent, group, session.
            member = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            if member == session:
                total += int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return total


def contenders(network: str, folder: Path, torch: str, options: argparse.Namespace, cores: int) -> list[Contender]:
    script = str(ROOT / "benchmarks" / "train_speed_torch.py")
    tail = [str(options.batch), str(cores), str(options.seconds)]
    found = [
        Contender(network, f"PyTorch {layout}", [torch, script, "time", network, layout, *tail])
        for layout in LAYOUTS[network]
    ]
    pythons = {"training": sys.executable, "plain": sys.executable, "plain, newest": options.newest}
    for engine in ENGINES:
        if pythons[engine] is None:
            continue
        command = [pythons[engine], "-m", "benchmarks.train_speed_onnxadmm", str(folder / f"{network}.onnx")]
        for workers in sorted({cores, 1} if network == ALONE and engine == "training" else {cores}):
            words = [engine.partition(",")[0], str(options.batch), str(workers), str(options.seconds)]
            found.append(Contender(network, own_name(engine, workers), [*command, *words]))
    return found


def own_name(engine: str, workers: int) -> str:
    """What one of this project's contenders is called."""
    return f"onnxadmm {engine}, {workers} worker{'s' if workers > 1 else ''}"


def summary(rows: list[dict[str, Any]], cores: int) -> dict[str, Any]:
    """Ratios of each engine to PyTorch's better layout of each network, and of the plain ones to the training build's.

    Geometric means stand under ``"mean"``.
    """
    ratios: dict[str, dict[str, float]] = {}
    for network in {row["network"]: None for row in rows}:
        speed = {row["contender"]: row["images_per_second"] for row in rows if row["network"] == network}
        theirs = max(value for name, value in speed.items() if name.startswith("PyTorch"))
        own = {engine: speed[own_name(engine, cores)] for engine in ENGINES if own_name(engine, cores) in speed}
        ratios[network] = {engine: value / theirs for engine, value in own.items()}
        ratios[network] |= {f"{engine} to training": own[engine] / own["training"] for engine in own}
        del ratios[network]["training to training"]
    kinds = next(iter(ratios.values()))
    means = {kind: math.exp(statistics.mean(math.log(each[kind]) for each in ratios.values())) for kind in kinds}
    return {"ratios": {**ratios, "mean": means}}


def table(result: dict[str, Any]) -> str:
    """Markdown: one row per network, the geometric means of the ratios in the last."""
    cores, rows, ratios = result["machine"]["cores"], result["rows"], result["ratios"]
    engines = [engine for engine in ENGINES if engine in ratios["mean"]]
    titles = {"training": "training build", "plain": "plain", "plain, newest": f"plain, {result['versions']['newest']}"}
    head = ["", "PyTorch, channels first", "channels last", *(titles[engine] for engine in engines)]
    head += [f"{titles[engine]} / PyTorch" for engine in engines]
    head += [f"{titles[engine]} / training build" for engine in engines[1:]]
    lines = ["| " + " | ".join([*head, "memory, MB"]) + " |", "|---" * (len(head) + 1) + "|"]
    for network, found in ratios.items():
        kinds = [*engines, *(f"{engine} to training" for engine in engines[1:])]
        quotients = [f"{found[kind]:.2f}" for kind in kinds]
        if network == "mean":
            lines.append("| " + " | ".join(["geometric mean", "", "", *("" for _ in engines), *quotients, ""]) + " |")
            continue
        own = {row["contender"]: row for row in rows if row["network"] == network}
        torch = [own.get(f"PyTorch {layout}") for layout in ("channels_first", "channels_last")]
        ours = [own[own_name(engine, cores)] for engine in engines]
        speeds = ["" if row is None else f"{row['images_per_second']:,.0f}" for row in (*torch, *ours)]
        better = max((row for row in torch if row is not None), key=lambda row: float(row["images_per_second"]))
        memory = " / ".join(f"{row['peak_mb']:,.0f}" for row in (better, *ours))
        lines.append("| " + " | ".join([network, *speeds, *quotients, memory]) + " |")
    speed = {row["contender"]: row["images_per_second"] for row in rows if row["network"] == ALONE}
    if cores > 1 and ALONE in ratios:
        one, all_ = speed[own_name("training", 1)], speed[own_name("training", cores)]
        lines += ["", f"{ALONE} with 1 worker: {one:,.0f}, with {cores}: {all_:,.0f} ({all_ / one:.2f} times)."]
    return "\n".join(lines)


def put_into_page(text: str, marks: tuple[str, str] = MARKS) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    PAGE.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = [line.partition(":") for line in lines]
    name = next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())
    flags = next((value.split() for key, _, value in fields if key.strip() == "flags"), [])
    vector = next((words for flag, words in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return f"{name} {vector}".strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, metavar="PYTHON", help="Python of the environment with PyTorch")
    parser.add_argument("--newest", metavar="PYTHON", help="Python of an environment with the newest onnxruntime")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement, at least")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = str(ROOT / "benchmarks" / "train_speed_torch.py")
        subprocess.run([options.torch, script, "export", name], check=True, stdout=subprocess.DEVNULL)
        every = [item for net in options.networks for item in contenders(net, folder, options.torch, options, cores)]
        for _ in range(options.rounds):
            for item in every:
                item.measure()
                print(f"{item.network}, {item.name}: {options.batch / item.times[-1]:,.0f} / s", file=sys.stderr)
    rows = [item.row(options.batch) for item in every]
    version = {item.name.partition(",")[0]: item.version for item in every if "newest" not in item.name}
    newest = next((item.version for item in every if "newest" in item.name), "")
    versions = {"PyTorch": every[0].version, "onnxruntime-training": version["onnxadmm training"], "newest": newest}
    result = {
        "command": f"python -m benchmarks.train_speed --torch PYTHON --newest PYTHON --batch {options.batch} "
        f"--rounds {options.rounds} --seconds {options.seconds:g}",
        "machine": {"processor": processor(), "cores": cores},
        "versions": {**versions, "python": platform.python_version()},
        "batch": options.batch,
        "rows": rows,
        **summary(rows, cores),
    }
    print(table(result))
    if tuple(options.networks) == NETWORKS:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        put_into_page(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
