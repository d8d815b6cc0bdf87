"""The page of benchmarks/estimates.py, from the files of its cells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import in_words
from onnxadmm.report.words import duration, size_in_bytes

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "estimates"
PAGE: Final = ROOT / "benchmarks" / "estimates.md"
TITLES: Final = {
    "resnet20": "ResNet-20, CIFAR-10",
    "mobilenetv2": "MobileNetV2, CIFAR-10",
    "cifarnet": "VGG-like network, CIFAR-10",
    "resnet50": "ResNet-50 at 224, pruning alone",
}
PLANS: Final = {
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNetV2",
    "alexnet": "AlexNet",
    "vit_small_16": "ViT-S/16",
}
_TRAININGS: Final = ("prune", "retrain")
Cells = Mapping[str, Mapping[str, Any]]


def render(found: Cells) -> str:
    """Return the page, in Markdown."""
    cells = [(title, found[name]) for name, title in TITLES.items() if name in found]
    lines = [
        "# Estimates beside runs",
        "",
        "What `onnxadmm estimate` says, and what the command that it prints takes by the clock, from the shell and "
        "back to it, one behind the other and with nothing else on the machine. ResNet-20 and MobileNetV2 take 4,000 "
        "images with augmentation, the third network the same without, where the teacher's answers are kept from the "
        "first epoch on; ResNet-50 takes 192 drawn JPEGs of about 440x440 pixels and batches of 16.",
        "",
        "| | estimated | took | off | pruning | retraining | memory of a training |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, cell in cells:
        estimate, took = cell["estimate"], cell["took"]
        told = {stage["name"]: stage["seconds"] for stage in estimate["stages"]}
        trained = [
            f"{duration(told[name])} / {duration(cell['stages'][name])}" if name in told else "" for name in _TRAININGS
        ]
        off = 100 * (estimate["seconds"] / took - 1)
        memory = size_in_bytes(max(stage["memory_bytes"] for stage in estimate["stages"] if stage["epochs"]))
        figures = (duration(estimate["seconds"]), duration(took), f"{off:+.1f} %", *trained, memory)
        lines.append(f"| {title} | {' | '.join(figures)} |")
    machines = sorted({in_words(cell["machine"]) for _, cell in cells})
    lines += ["", f"Estimated / taken. Measured on {'; '.join(machines)} by `python -m benchmarks.estimates`.", ""]
    lines += ["```sh", *(cell["command"] for _, cell in cells), "```", ""]
    lines += ["Plans of ImageNet, made in the same way, stand in [docs/scale.md](../docs/scale.md).", ""]
    return "\n".join(lines)


def plans(found: Cells) -> str:
    """Return the table of the plans of docs/scale.md, in Markdown."""
    made = [(title, found[f"plan-{name}"]) for name, title in PLANS.items() if f"plan-{name}" in found]
    places = [each["cores"] for each in made[0][1]["elsewhere"]] if made else []
    titles = ("network", "images a second", "memory", "hours here", *(f"on {place} cores" for place in places))
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for title, cell in made:
        here, rates = cell["estimate"], cell["estimate"]["rates"]
        trained = " / ".join(f"{rates[f'samples trained while {name}']:.3g}" for name in ("pruning", "retraining"))
        memory = size_in_bytes(max(stage["memory_bytes"] for stage in here["stages"]))
        hours = [f"{each['seconds'] / 3600:.3g}" for each in (here, *cell["elsewhere"])]
        lines.append(f"| {' | '.join((title, trained, memory, *hours))} |")
    machines = sorted({in_words(cell["machine"]) for _, cell in made})
    lines += ["", f"Measured on {'; '.join(machines)} by `python -m benchmarks.estimates`. The commands:", ""]
    return "\n".join([*lines, "```sh", *(cell["command"] for _, cell in made), "```"])


def memory(found: Cells) -> str:
    """Return what a step of a ResNet-50 takes by ``--accumulate``, in Markdown."""
    if "memory" not in found:
        return ""
    cell = found["memory"]
    lines = [
        "| `--accumulate` | samples at a time | memory of all processes | expected from the graph |",
        "|---|---|---|---|",
    ]
    for each in cell["steps"]:
        once = f"{cell['workers']} x {each['part']}"
        sizes = " | ".join(size_in_bytes(each[name]) for name in ("peak_bytes", "expected_bytes"))
        lines.append(f"| {each['accumulate']} | {once} | {sizes} |")
    lines += [
        "",
        "ResNet-50 at 224, `--batch-size 128 --workers 2 --norm keep`, the most in two steps with AdamW, measured by",
    ]
    lines.append(f"`python -m benchmarks.estimates --only memory` on {in_words(cell['machine'])}.")
    return "\n".join(lines)


def teacher(found: Cells) -> str:
    """Return the share of a retraining step that the teacher's answers are, in Markdown."""
    made = [(title, found[f"plan-{name}"]["estimate"]) for name, title in PLANS.items() if f"plan-{name}" in found]
    lines = [
        "| network | samples answered a second, one core | share of the work of a retraining step |",
        "|---|---|---|",
    ]
    for title, estimate in made:
        rates, cores = estimate["rates"], estimate["cores"]
        share = rates["samples trained while retraining"] / rates["samples answered"] / cores
        lines.append(f"| {title} | {rates['samples answered']:.3g} | {100 * share:.0f} % |")
    return "\n".join(lines)
