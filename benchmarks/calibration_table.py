"""The page of benchmarks/calibration.py, from the files of its cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks.machine import in_words

PAGE: Final = Path(__file__).resolve().parent / "calibration.md"
Cells = Sequence[Mapping[str, Any]]

TITLES: Final = {
    "resnet20": "ResNet-20 on CIFAR-10",
    "cifarnet": "A VGG-like network on CIFAR-10",
    "mobilenetv2": "A MobileNetV2 for 32 x 32 pictures on CIFAR-10",
    "lenet5": "LeNet-5 on MNIST",
}


def render(cells: Cells) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Pruning from 512 unlabelled samples",
        "",
        "Test accuracy of the whole test set after `onnxadmm compress --calibrate`, and beside it: the same plan cut "
        "without a fit, a plan by magnitude cut without a fit, and onnxsim's structured pruning with its own recovery. "
        "Where several draws of the samples were measured, the mean stands first and the range behind it. onnxsim's "
        "figure is the best of two criteria and two ways to repair, chosen on the test set itself, at the smallest "
        "sparsity that meets the budget.",
        "",
        "The networks of CIFAR-10 are earlier trainings of those in `benchmarks/models`, which are better.",
    ]
    for network, title in TITLES.items():
        here = [cell for cell in cells if cell["cell"]["network"] == network]
        if here:
            lines += ["", f"## {title}", "", *_table(here)]
    own = [cell for cell in cells if cell["cell"]["method"] == "calibrate"]
    if own:
        machines = sorted({in_words(cell["machine"]) for cell in own})
        lines += [
            "",
            f"Measured on {'; '.join(machines)}, shared with other work, by `python -m benchmarks.calibration`.",
        ]
        lines += ["", "Commands, one of each kind:", "", "```sh", *_commands(own), "```"]
    missed = [cell for cell in own if cell["missed"]]
    if missed:
        lines += ["", "Below the bar:", ""]
        lines += [f"- {_name(cell)}: {'; '.join(cell['missed'])}" for cell in missed]
    return "\n".join(lines) + "\n"


def _table(cells: Cells) -> list[str]:
    dense = cells[0]["accuracy"][0]
    kind = "parameters" if cells[0]["cell"]["network"] == "lenet5" else "macs"
    words = {"macs": "MACs", "parameters": "parameters"}[kind]
    lines = [
        f"The original: {100 * dense:.2f} %, {cells[0][kind][0]:,} {words}.",
        "",
        f"| fewer {words} | method | accuracy | points lost | {words} left | seconds | of the processor |",
        "|---|---|---|---|---|---|---|",
    ]
    ways = [("calibrate", "normal"), ("calibrate", "quick"), ("calibrate", "best"), ("cut", "normal")]
    ways += [("magnitude", "normal"), ("onnxsim", "normal")]
    for fewer in sorted({cell["cell"]["fewer"] for cell in cells}):
        for method, effort in ways:
            group = [
                cell
                for cell in cells
                if (cell["cell"]["fewer"], cell["cell"]["method"], cell["cell"]["effort"]) == (fewer, method, effort)
            ]
            if group:
                lines.append(_row(group, fewer, _way(group[0]), kind))
    return lines


def _way(cell: Mapping[str, Any]) -> str:
    it = cell["cell"]
    if it["method"] == "calibrate":
        return f"`compress --calibrate --effort {it['effort']}`"
    if it["method"] == "cut":
        return "the same plan, cut only"
    if it["method"] == "magnitude":
        return "by magnitude, cut only"
    return f"onnxsim {cell['detail']['onnxsim']}"


def _row(group: Cells, fewer: float, way: str, kind: str) -> str:
    values = [100 * cell["accuracy"][1] for cell in group]
    lost = [100 * (cell["accuracy"][0] - cell["accuracy"][1]) for cell in group]
    left = mean(cell[kind][1] / cell[kind][0] for cell in group)
    cells = [f"{fewer:g}x", way, _spread(values, " %"), _spread(lost, ""), f"{100 * left:.1f} %"]
    cells += [_seconds(group, "seconds"), _seconds(group, "cpu_seconds")]
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], unit: str) -> str:
    middle = f"{mean(values):.2f}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def _seconds(group: Cells, name: str) -> str:
    values = [cell[name] for cell in group if cell[name] is not None]
    return f"{mean(values):.0f}" if values else ""


def _commands(cells: Cells) -> list[str]:
    found: dict[tuple[str, str], str] = {}
    for cell in cells:
        found.setdefault((cell["cell"]["network"], cell["cell"]["effort"]), cell["command"])
    return list(found.values())


def _name(cell: Mapping[str, Any]) -> str:
    it = cell["cell"]
    return f"{it['network']} at {it['fewer']:g}x, samples {it['sampling']}"
