"""The page of benchmarks/quality.py, from the files of its cells."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks.quality_methods import Method
from benchmarks.quality_pairs import Key, Pair

PAGE: Final = Path(__file__).resolve().parent / "quality.md"
TITLES: Final = {
    "resnet20": "ResNet-20 on CIFAR-10",
    "cifarnet": "A VGG-like network on CIFAR-10",
    "mobilenetv2": "A MobileNetV2 for 32 x 32 pictures on CIFAR-10",
    "lenet5": "LeNet-5 on MNIST",
    "lenet5-whole": "LeNet-5 on MNIST, all images and epochs of the usual number",
    "resnet20-whole": "ResNet-20 on CIFAR-10, all images and epochs of the usual number",
}
Cells = Sequence[Mapping[str, Any]]


def render(cells: Cells, methods: Mapping[str, Method], paired: Mapping[Key, Pair]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# What is left of accuracy, method by method",
        "",
        "Every method has the same training images, teacher and number of steps, and but for the row that says so the "
        "same optimiser (Torch-Pruning's while it trains sparsely is its own): what one does not spend on choosing "
        "units, its small network is retrained for. Held-out "
        "images choose among two retraining rates "
        "(of ResNet-20 with all images there is one) and all states; accuracy is that of the whole test set. The mean "
        "over the seeds stands first, the range behind it.",
        "",
        "Behind each difference from the default stands the chance of one as large between methods that are equally "
        "good: a paired test over the test images, where an image counts the share of the seeds that have it right and "
        "only seeds that both were measured with count (with one seed, McNemar's), corrected for the number of "
        "comparisons on this page (Holm). It says what the test images tell apart. What another seed changes is in the "
        "ranges.",
    ]
    for network, title in TITLES.items():
        own = sorted((cell for cell in cells if cell["cell"]["network"] == network), key=_share, reverse=True)
        for share, group in groupby(own, key=_share):
            here = list(group)
            kind = "parameters" if network.startswith("lenet5") else "MACs"
            amount = f"{100 * share:g} % of the" if share <= 1 else f"{share:,.0f}"
            lines += ["", f"## {title}, {amount} {kind}", "", *_table(here, methods, paired)]
    machines = sorted({f"{cell['machine']['cpu']}, {cell['machine']['simd']}" for cell in cells})
    lines += ["", f"Measured on {'; '.join(machines)}, shared with other work, by `python -m benchmarks.quality`."]
    return "\n".join(lines) + "\n"


def _share(cell: Mapping[str, Any]) -> float:
    return float(cell["cell"]["share"])


def _cost(cell: Mapping[str, Any]) -> Sequence[int]:
    """What the budget is of, of the original and of the result."""
    cost: Sequence[int] = cell["parameters" if cell["cell"]["network"].startswith("lenet5") else "macs"]
    return cost


def _most(cell: Mapping[str, Any]) -> float:
    """What the result may cost."""
    share = _share(cell)
    return share * _cost(cell)[0] if share <= 1 else share


def _difference(cell: Mapping[str, Any], paired: Mapping[Key, Pair]) -> str:
    """How far its method is from the default."""
    own = cell["cell"]
    pair = paired.get((own["network"], own["share"], own["method"]))
    if pair is None:
        return ""
    chance = (
        f"{pair.chance:.2f}" if pair.chance >= 0.01 else f"{pair.chance:.3f}" if pair.chance >= 0.001 else "< 0.001"
    )
    return f"{pair.points:+.2f} ({chance})"


def _table(cells: Cells, methods: Mapping[str, Method], paired: Mapping[Key, Pair]) -> list[str]:
    lines = [
        f"The original: {100 * cells[0]['accuracy'][0]:.2f} %, {cells[0]['macs'][0]:,} MACs, "
        f"{cells[0]['parameters'][0]:,} parameters.",
        "",
        "| units and weights by | test accuracy | from the default, points | held-out when cut | MACs | parameters "
        "| epochs | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = {name: [cell for cell in cells if cell["cell"]["method"] == name] for name in methods}
    known = {name: own for name, own in found.items() if own}
    for name in sorted(known, key=lambda name: -mean(cell["accuracy"][1] for cell in known[name])):
        own = known[name]
        accuracies = [100 * cell["accuracy"][1] for cell in own]
        spread = f" ({min(accuracies):.2f} to {max(accuracies):.2f})" if len(own) > 1 else ""
        epochs = " + ".join(str(count) for count in own[0]["epochs"])
        cut = mean(100 * cell["held_out"][0] for cell in own)
        missed = any(_cost(cell)[1] > _most(cell) for cell in own)
        title = methods[name].title + (", the least it can leave: over the budget" if missed else "")
        lines.append(
            f"| {title} | {mean(accuracies):.2f} %{spread} | {_difference(own[0], paired)} | {cut:.1f} % "
            f"| {mean(cell['macs'][1] for cell in own):,.0f} | {mean(cell['parameters'][1] for cell in own):,.0f} "
            f"| {epochs} | {len(own)} |"
        )
    return lines
