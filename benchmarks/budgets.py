"""How exactly budgets are met: random networks, random budgets, counted on the network that is left.

Run from the root of the repository: ``python -m benchmarks.budgets``. Networks are drawn from tests/zoo, what each
exporter wrote, and benchmarks/models; a budget is of multiply-accumulates, parameters or bytes, 15 to 90 % of the
original's. Each is met by ``onnxadmm.rank`` twice: with any number of channels, and with whole vector registers of them
where a layer has more, as a training does by default. The network that is left is analysed anew, or its file weighed.
Writes benchmarks/results/budgets.json and benchmarks/budgets.md. The status is 1 when a budget is exceeded, or fewer
than ``MET`` of those that a single unit more would not exceed are met to ``WITHIN``.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnxadmm as oa
from onnxadmm.admm.ladder import make_ladder
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.errors import BudgetError, NothingToPruneError
from onnxadmm.graph.model import Model, load, save
from onnxadmm.rewrite.file_size import file_size
from onnxadmm.units.cost import Cost, CountKind
from onnxadmm.units.units import Units, find_units

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "benchmarks" / "budgets.md"
RESULTS: Final = ROOT / "benchmarks" / "results" / "budgets.json"
PAIRS: Final = 60
SEED: Final = 0
KINDS: Final[tuple[CountKind, ...]] = ("macs", "params", "size")
#: What a budget may be left unspent by, by multiples of channels: any number of them, and whole vector registers.
WITHIN: Final = {"any": 0.02, "whole": 0.04}
MET: Final = 0.95


@dataclass(frozen=True)
class Result:
    """One budget of one network.

    Attributes:
        network: file name without suffix.
        kind: what is counted.
        share: of the original's that is allowed.
        multiple: ``"any"`` number of channels, or ``"whole"`` vector registers of them.
        spent: of what is allowed, counted on the network that is left.
        step: of what is allowed, by the cheapest level of a group that was not taken; 0 where all units stay.
    """

    network: str
    kind: CountKind
    share: float
    multiple: str
    spent: float
    step: float

    @property
    def is_met(self) -> bool:
        """Whether little is left, or no level of any group fits into what is."""
        return 1 - self.spent <= max(WITHIN[self.multiple], self.step)


def cheapest_step(units: Units, limits: oa.Limits, cost: Cost, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """What the next level of some group costs more, the least of all; 0 where no group has a next one."""
    now, found = cost.total(keep), []
    for group in map(limits.of, units.groups):
        gone = [members[~keep[members]] for members in group.members]
        kept = len(group.members[0]) - len(gone[0])
        ladder = make_ladder(group, np.stack(group.members, axis=1))
        higher = ladder.levels[ladder.levels > kept]
        if higher.size:
            more = keep.copy()
            for members in gone:
                more[members[: int(higher[0]) - kept]] = True
            found.append(cost.total(more) - now)
    return min(found, default=0.0)


def measured(small: Model, kind: CountKind, folder: Path) -> float:
    """What is left, counted on the network itself."""
    if kind == "size":
        path = folder / "small.onnx"
        save(small, path, force=True)
        return float(path.stat().st_size)
    return Cost(find_units(small), kind).dense()


def met(path: Path, kind: CountKind, share: float, by: Any, folder: Path) -> list[Result]:
    """One budget, with any number of channels and with whole vector registers of them.

    Raises:
        BudgetError, NothingToPruneError: it cannot be met.
    """
    model = load(path)
    units = find_units(model)
    file = file_size(model, units, original=path.stat().st_size) if kind == "size" else None
    whole = float(path.stat().st_size) if kind == "size" else Cost(units, kind).dense()
    results = []
    for multiple, size in (("any", 1), ("whole", this_machine().simd_floats)):
        limits = oa.Limits(round_to=size)
        plan = oa.rank(path, {kind: share}, by=by, limits=limits)
        keep = plan.keep(model, units)
        left = measured(oa.shrink(path, plan), kind, folder)
        step = cheapest_step(units, limits, Cost(units, kind, file=file, near=keep), keep)
        results.append(Result(path.stem, kind, share, multiple, left / (share * whole), step / (share * whole)))
    return results


def page(results: list[Result], refused: int) -> str:
    """The page of the figures."""
    lines = [
        "# How exactly budgets are met",
        "",
        f"{PAIRS} budgets drawn at random, of networks drawn at random from the {len(networks())} that exporters",
        "wrote for the tests and the three of `benchmarks/models`; each is of multiply-accumulates, parameters or",
        "bytes, 15 to 90 % of the original's, counted on the network that is left: analysed anew, or its file weighed.",
        "*Or nothing fits*: the next unit of any group (with whole registers the next registerful) would cost more",
        f"than is left. {refused} more draws were refused before anything was cut, with the least that can be had.",
        "",
        "| kept counts of channels | budgets | exceeded | within | or nothing fits | median unspent | most unspent |",
        "|---|---|---|---|---|---|---|",
    ]
    for multiple, title in (("any", "any"), ("whole", "whole vector registers, where a layer has more than one")):
        these = [each for each in results if each.multiple == multiple]
        unspent = sorted(1 - each.spent for each in these)
        close, near = sum(rest <= WITHIN[multiple] for rest in unspent), sum(each.is_met for each in these)
        exceeded = sum(each.spent > 1 for each in these)
        lines.append(
            f"| {title} | {len(these)} | {exceeded} | {close} within {WITHIN[multiple]:.0%} | {near} | "
            f"{np.median(unspent):.2%} | {unspent[-1]:.1%} |"
        )
    machine = this_machine()
    lines += [
        "",
        f"Seed {SEED}, on {machine.cpu} ({machine.simd}, {machine.simd_floats} numbers a register), by",
        "`python -m benchmarks.budgets`.",
    ]
    return "\n".join(lines) + "\n"


def networks() -> list[Path]:
    """Files to draw from; those with weights beside them are left out."""
    zoo = sorted((ROOT / "tests" / "zoo").glob("*.onnx"))
    return [*zoo, *sorted((ROOT / "benchmarks" / "models").glob("*.onnx"))]


def main() -> int:
    """Draw, measure, and write the page."""
    generator = np.random.default_rng(SEED)
    found, refused = networks(), 0
    # One draw in four is of the trained ones, which else would be one in eighty.
    bases = [path for path in found if path.parent.name == "models"]
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        while len(results) < 2 * PAIRS:
            some = bases if generator.random() < 0.25 else found
            path = some[int(generator.integers(len(some)))]
            kind = KINDS[int(generator.integers(len(KINDS)))]
            share = round(float(generator.uniform(0.15, 0.9)), 3)
            by = ("magnitude", "random")[int(generator.integers(2))]
            try:
                results += met(path, kind, share, by, Path(name))
            except (BudgetError, NothingToPruneError) as error:
                refused += 1
                print(f"{path.stem}, {kind} {share}: {error}", file=sys.stderr)
                continue
            print(*map(str, results[-2:]), sep="\n", file=sys.stderr, flush=True)
    written = {
        "command": "python -m benchmarks.budgets",
        "machine": asdict(this_machine()),
        "versions": package_versions(),
        "seed": SEED,
        "refused": refused,
        "results": [asdict(each) for each in results],
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results, refused), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    few = any(sum(each.is_met for each in results if each.multiple == multiple) < MET * PAIRS for multiple in WITHIN)
    return int(few or any(each.spent > 1 for each in results))


if __name__ == "__main__":
    sys.exit(main())
