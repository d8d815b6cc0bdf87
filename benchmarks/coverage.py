"""What the rewriter makes of every model of a folder, beside onnxsim's structured pruning at the same sparsity.

Every model runs in a child process of its own, so a crash is a row and not an end. Per model: groups, units, why the
locked groups stay, parameters and multiply-accumulates before and after, whether masked and shrunk model agree, seconds
and peak memory.

Run from the root of the repository: ``python -m benchmarks.coverage FOLDER -o coverage`` writes ``coverage.json`` and
``coverage.md``. By default 30 % of the units of every group go by magnitude; ``--params 0.7`` sets a budget instead,
and falls back to the least that the unlocked groups allow.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

TIMEOUT_SECONDS = 600


@dataclass
class Row:
    """One model.

    Attributes:
        model: name of the file.
        status: ``shrunk``; ``unchanged`` (no group is large enough for the share); ``nothing`` (no unlocked group);
            ``wrong`` (verification failed); ``refused`` (an error of ours in words); ``crash`` (anything else).
        detail: the sentence behind a status that is not ``shrunk``.
        groups, units: those that may shrink.
        locked: how often each reason locks a group.
        parameters, macs: before and after; MACs of one sample.
        file_bytes: before and after.
        asked: what the plan was asked for, in words.
        snr_db: worst signal-to-noise ratio of the outputs; None when identical.
        seconds: analysis, ranking and shrinking; verification apart.
        peak_mb: peak memory of the child process, verification included; ``shrink_peak_mb`` before verification.
        onnxsim: the same by onnxsim: status and parameters.
    """

    model: str
    status: str = "crash"
    detail: str = ""
    groups: int = 0
    units: int = 0
    locked: dict[str, int] = field(default_factory=dict)
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    file_bytes: tuple[int, int] = (0, 0)
    asked: str = ""
    snr_db: float | None = None
    seconds: float = 0.0
    verify_seconds: float = 0.0
    shrink_peak_mb: float = 0.0
    peak_mb: float = 0.0
    onnxsim: dict[str, Any] = field(default_factory=dict)


def peak_megabytes() -> float:
    """Peak resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def examine(path: Path, *, ratio: float | None, params: float | None) -> Row:
    """Prune one model and verify the result; runs in the child."""
    # Imported here: the parent must not pay for it, nor be harmed by it.
    from onnxadmm.errors import NothingToPruneError, OnnxAdmmError
    from onnxadmm.graph.model import load, save
    from onnxadmm.surgery import find_groups, shrink, verify
    from onnxadmm.units.cost import Cost

    row = Row(path.name)
    started = time.perf_counter()
    try:
        model = load(path)
        units = find_groups(model)
        row.groups, row.units = len(units.groups), units.count
        row.locked = dict(Counter(group.reason for group in units.locked).most_common())
        plan, row.asked = _plan(model, units, ratio=ratio, params=params)
        small = shrink(model, plan)
        row.seconds = time.perf_counter() - started
        row.shrink_peak_mb = peak_megabytes()
        keep = plan.keep(model, units)
        for kind in ("params", "macs"):
            cost = Cost(units, kind)
            before_after = (round(cost.dense()), round(cost.total(keep)))
            row.parameters, row.macs = (before_after, row.macs) if kind == "params" else (row.parameters, before_after)
        with tempfile.TemporaryDirectory() as folder:
            row.file_bytes = (model.file_bytes, save(small, Path(folder) / "small.onnx"))
        started = time.perf_counter()
        found = verify(model, small, plan)
        row.verify_seconds = time.perf_counter() - started
        row.snr_db = None if np.isinf(found.snr_db) and found.passed else float(found.snr_db)
        row.status, row.detail = ("shrunk", "") if found.passed else ("wrong", found.first_difference or "")
        if found.passed and row.parameters[0] == row.parameters[1]:
            row.status, row.detail = "unchanged", "the plan removes nothing: no group is large enough for this share"
    except NothingToPruneError as error:
        row.status, row.detail = "nothing", str(error)
    except OnnxAdmmError as error:
        row.status, row.detail = "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        row.status, row.detail = "crash", f"{type(error).__name__}: {error} ({_place(error)})"
    row.seconds = row.seconds or time.perf_counter() - started
    row.peak_mb = peak_megabytes()
    return row


def _plan(model: Any, units: Any, *, ratio: float | None, params: float | None) -> tuple[Any, str]:
    """Return a plan and what was asked for; a budget that cannot be met becomes the least that can."""
    from onnxadmm.errors import BudgetError
    from onnxadmm.plan.budget import Budget
    from onnxadmm.planning import rank

    if params is None:
        return rank(model, ratio=ratio, by="magnitude"), f"{ratio:.0%} of the units of every group go"
    for share in np.arange(params, 1.0, 0.02):
        try:
            return rank(model, Budget(params=float(share)), by="magnitude"), f"{share:.0%} of the parameters stay"
        except BudgetError:
            continue
    raise BudgetError("the plan", expected="a reachable budget", found="none below 100 %", way_out="inspect the model")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def examine_peer(path: Path, *, ratio: float) -> dict[str, Any]:
    """Prune one model by onnxsim, check that the result loads and runs, and count its weights; runs in the child."""
    import onnx
    from onnxsim.pruning import apply_structured_pruning

    from onnxadmm.bench.inputs import random_inputs
    from onnxadmm.graph.model import load

    original = onnx.load(path)
    before = _weights(original)
    started = time.perf_counter()
    try:
        pruned = apply_structured_pruning(original, sparsity=ratio)
    except Exception as error:
        return {"status": "crash", "detail": f"{type(error).__name__}: {error}"[:200]}
    result: dict[str, Any] = {"seconds": time.perf_counter() - started, "parameters": [before, _weights(pruned)]}
    if result["parameters"][1] >= before:
        return {**result, "status": "unchanged"}
    feed = random_inputs(load(path), batch=2, seed=0)
    try:
        _run(original, feed)
    except Exception:  # then it proves nothing that the result does not run either
        return {**result, "status": "shrunk (not run)", "detail": "this onnxruntime does not run the original"}
    try:
        _run(pruned, feed)
    except Exception as error:
        return {**result, "status": "broken", "detail": str(error)[:200]}
    return {**result, "status": "shrunk"}


def _weights(model: Any) -> int:
    """Count the elements of floating and 8-bit initializers and constants with at least one axis."""
    import onnx

    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [
            attribute.t for attribute in node.attribute if node.op_type == "Constant" and attribute.HasField("t")
        ]
    return sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in kinds and tensor.dims)


def _run(model: Any, feed: dict[str, Any]) -> None:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, feed)
    if any(array.dtype.kind == "f" and np.isnan(array).all() for array in outputs if isinstance(array, np.ndarray)):
        raise ValueError("the pruned model returns NaN")


def in_child(verb: str, path: Path, options: argparse.Namespace) -> tuple[dict[str, Any] | None, str]:
    """Run one examination in a process of its own: its answer, or None and what happened."""
    command = [sys.executable, "-m", "benchmarks.coverage", str(path), "--child", verb]
    command += ["--ratio", str(options.ratio)] if options.params is None else ["--params", str(options.params)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return None, f"longer than {TIMEOUT_SECONDS} s"
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        return None, f"the process ended with {done.returncode}: {last[0]}"
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer, ""


def survey(path: Path, options: argparse.Namespace) -> Row:
    """Examine one model by both tools."""
    answer, trouble = in_child("own", path, options)
    names = {item.name for item in fields(Row)}
    row = Row(path.name, detail=trouble) if answer is None else Row(**{k: v for k, v in answer.items() if k in names})
    if options.peer:
        peer, trouble = in_child("peer", path, options)
        row.onnxsim = {"status": "crash", "detail": trouble} if peer is None else peer
    return row


def percent(pair: Any) -> str:
    """After as a share of before."""
    return f"{100 * pair[1] / pair[0]:.1f} %" if pair and pair[0] else ""


def render(rows: list[Row], *, peer: bool) -> str:
    """The table in Markdown, a summary above it."""
    counts = Counter(row.status for row in rows)
    asked = Counter(row.asked for row in rows if row.asked).most_common(1)
    wanted = f" ({asked[0][0]}, by magnitude)" if asked else ""
    lines = [
        f"{len(rows)} models{wanted}: "
        + ", ".join(f"{number} {status}" for status, number in counts.most_common())
        + "."
    ]
    if peer:
        others = Counter(row.onnxsim.get("status", "") for row in rows)
        lines.append(
            "onnxsim, `apply_structured_pruning(sparsity=0.3)`: "
            + ", ".join(f"{number} {status}" for status, number in others.most_common())
            + "."
        )
    titles = ["model", "result", "groups", "units", "locked", "params", "left", "MACs left", "dB", "s", "MB"]
    titles += ["onnxsim", "left"] if peer else []
    lines += ["", "| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for row in rows:
        ratio = "" if row.status not in ("shrunk", "wrong") else "equal" if row.snr_db is None else f"{row.snr_db:.0f}"
        cells = [row.model.removesuffix(".onnx"), row.status, row.groups, row.units, sum(row.locked.values())]
        cells += [f"{row.parameters[0]:,}", percent(row.parameters), percent(row.macs), ratio]
        cells += [f"{row.seconds:.2f}", f"{row.shrink_peak_mb or row.peak_mb:.0f}"]
        cells += [row.onnxsim.get("status", ""), percent(row.onnxsim.get("parameters"))] if peer else []
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    trouble = [row for row in rows if row.status not in ("shrunk",)]
    if trouble:
        lines += ["", "Not shrunk:", ""]
        lines += [f"- {row.model.removesuffix('.onnx')}: {row.status}: {row.detail[:400]}" for row in trouble]
    reasons = Counter[str]()
    for row in rows:
        reasons.update(row.locked)
    lines += ["", "Reasons of locked groups, most frequent first:", ""]
    lines += [f"- {number} x {reason}" for reason, number in reasons.most_common(40)]
    return "\n".join(lines) + "\n"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prune every model of a folder and compare with onnxsim.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="path without suffix: .json and .md are written")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of the units of every group that goes")
    parser.add_argument("--params", type=float, help="share of the parameters that stays, instead of a ratio")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without onnxsim")
    parser.add_argument("--child", choices=("own", "peer"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Survey a folder; the exit status is 1 when any model crashed or was wrong."""
    options = parse(arguments)
    if options.child == "own":
        ratio = None if options.params is not None else options.ratio
        print(json.dumps(asdict(examine(options.folder, ratio=ratio, params=options.params))))
        return 0
    if options.child == "peer":
        print(json.dumps(examine_peer(options.folder, ratio=options.ratio)))
        return 0
    rows = []
    for path in sorted(options.folder.glob("*.onnx")):
        if options.only not in path.name:
            continue
        rows.append(survey(path, options))
        row = rows[-1]
        print(f"{row.model}: {row.status} {percent(row.parameters)} {row.detail[:300]}", file=sys.stderr, flush=True)
    if options.output is not None:
        options.output.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        options.output.with_suffix(".md").write_text(render(rows, peer=options.peer))
    return 1 if any(row.status in ("crash", "wrong", "refused") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
