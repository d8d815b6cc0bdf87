"""``sweep``: several budgets of one model, that share what they can."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from onnxadmm.compress import compress
from onnxadmm.errors import CheckpointError, OptionError
from onnxadmm.files import discard
from onnxadmm.output import CHECKPOINT_NAME, PAGE_NAME, UNFINISHED_NAME
from onnxadmm.plan.budget import COUNTED, Amount, Budget, parse_amount
from onnxadmm.plan.given import given_budget
from onnxadmm.report.page import page_of_sweep
from onnxadmm.report.reading import NAME as REPORT_NAME
from onnxadmm.report.reading import read_report
from onnxadmm.report.report import Report
from onnxadmm.report.tradeoff import CSV_NAME, NAME, TradeOff, to_csv, to_text, trade_off
from onnxadmm.report.writer import write_text
from onnxadmm.run.shared import Shared
from onnxadmm.surgery import Source
from onnxadmm.units.cost import CostKind

#: What the runs share, while there are more to come.
_SHARED: Final = "shared.npz"
#: Share of the pruning epochs that a budget takes at least which goes on from a larger network.
_LEAST_EPOCHS: Final = 0.15
#: Share of them that all budgets behind the first take together, beyond that least.
_ALL_EPOCHS: Final = 0.8


class _Budget(NamedTuple):
    """One budget of a sweep: the amount as it was given, and what it comes to for sorting."""

    asked: Amount
    number: float


def sweep(
    model: Source,
    *,
    out: str | Path,
    amounts: Mapping[CostKind, Sequence[Amount]],
    budget: Budget | Mapping[str, Any] | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> TradeOff:
    """Compress a model under several budgets, from the largest to the smallest.

    They share what they can. With ``calibrate`` the groups are measured once. With ``data`` every network is pruned
    from the one before, not from the original, in a share of the epochs that fits how much smaller it is to be, and
    retrained by itself; the teacher is always the original.

    Args:
        model: path or model.
        out: folder with a folder for each budget, as ``compress`` writes it, ``sweep.json``, ``sweep.csv`` and
            ``report.html``.
        amounts: for one kind of cost, such as ``{"params": [0.5, 0.2, 0.1]}``, at least two amounts, all of them shares
            or all of them numbers.
        budget: what else every result may cost.
        force: replace older results in ``out``.
        resume: leave budgets alone that are done, and go on with the others.
        options: whatever else ``compress`` takes.

    Returns:
        The points side by side; ``pick`` chooses one of them.

    Raises:
        OptionError: the amounts are no sweep.
        OnnxAdmmError: whatever ``compress`` raises; budgets that were done before stay.

    Examples:
        ```python
        found = oa.sweep("model.onnx", calibrate=images, bench=False, amounts={"macs": [0.8, 0.6, 0.4]}, out="sweeps")
        print(found.pick(max_drop=20.0).folder)
        ```
    """
    kind, budgets = _budgets(amounts)
    common = given_budget(budget)
    if common is not None and kind in common.amounts:
        raise OptionError(
            f"--{kind}", expected="it in the sweep, or for all", found="both", way_out="name it among the amounts alone"
        )
    folder = Path(out)
    shared = Shared()
    if resume:
        with suppress(CheckpointError):  # none was kept: every budget that is left begins with the original
            shared.read(folder / _SHARED)
    done: list[tuple[str, str, Report]] = []
    for place, each in enumerate(budgets):
        name = f"{kind}-{re.sub(r'[^A-Za-z0-9.]+', '', str(each.asked).replace('%', 'percent'))}"
        finished: Report | None = _finished(folder / name) if resume else None
        if finished is None:
            shared.epochs = 1.0 if shared.pruned is None else _epochs(budgets, place)
            finished = compress(
                model,
                budget=_with(common, kind, each.asked),
                out=folder / name,
                force=force,
                resume=resume and (folder / name / UNFINISHED_NAME / CHECKPOINT_NAME).exists(),
                shared=shared,
                **options,
            )
            if place + 1 < len(budgets):
                shared.write(folder / _SHARED)
        done.append((str(each.asked), name, finished))
        found = trade_off(kind, done, command=_command(done[0][2].command, kind, budgets, out))
        for file, text in ((NAME, to_text(found)), (CSV_NAME, to_csv(found)), (PAGE_NAME, page_of_sweep(found))):
            write_text(folder / file, text)
    discard(folder / _SHARED)
    return found


def _budgets(amounts: Mapping[CostKind, Sequence[Amount]]) -> tuple[CostKind, list[_Budget]]:
    """Return what is counted and the amounts of it, the largest first."""
    if len(amounts) != 1 or not set(amounts) <= set(COUNTED):
        raise OptionError(
            "the sweep",
            expected="amounts of one kind of cost",
            found=", ".join(map(str, amounts)) or "none",
            way_out='write e.g. --params 0.5,0.2,0.1, or amounts={"params": [0.5, 0.2, 0.1]}',
        )
    ((kind, given),) = amounts.items()
    option = f"--{kind}"
    found = [_Budget(amount, parse_amount(amount, option=option)) for amount in given]
    found.sort(key=lambda each: -each.number)
    shares = {each.number <= 1 and not str(each.asked).strip().endswith("s") for each in found}
    if len({each.number for each in found}) < max(2, len(found)) or len(shares) > 1:
        raise OptionError(
            option,
            expected="two different amounts or more, all shares or all numbers",
            found=", ".join(str(each.asked) for each in found) or "none",
            way_out="write e.g. 0.5,0.2,0.1",
        )
    return kind, found


def _with(common: Budget | None, kind: CostKind, amount: Amount) -> Budget:
    changed: dict[str, Any] = {kind: amount}
    return Budget(**changed) if common is None else replace(common, **changed)


def _epochs(budgets: Sequence[_Budget], place: int) -> float:
    """Share of the pruning epochs for a budget that goes on from the one before: by how much smaller it is."""
    way = math.log(budgets[place - 1].number / budgets[place].number)
    return max(_LEAST_EPOCHS, _ALL_EPOCHS * way / math.log(budgets[0].number / budgets[-1].number))


def _finished(folder: Path) -> Report | None:
    """The report of a budget that is done; None where it is not."""
    if (folder / UNFINISHED_NAME).exists() or not (folder / REPORT_NAME).exists():
        return None
    return read_report(folder)


def _command(of_first: str, kind: CostKind, budgets: Sequence[_Budget], out: str | Path) -> str:
    """What makes a sweep again, from the command of its first run."""
    words = shlex.split(of_first)
    words[words.index("compress")] = "sweep"
    words[words.index(f"--{kind}") + 1] = ",".join(str(each.asked) for each in budgets)
    words[words.index("--out") + 1] = str(out)
    return shlex.join(words)
