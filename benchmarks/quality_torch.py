"""Torch-Pruning's group-sparse trainer on a network of benchmarks/base_models.py, for benchmarks/quality.py.

Runs in an environment of its own: that of ``benchmarks.base_models`` and torch-pruning. The network's weights come
out of its ONNX file, in which norms are folded; they stand behind its convolutions again while it trains, with the
statistics of the training images. It trains as the library's own experiments do (SGD at 0.01 with momentum, falling
tenfold at 60 and 80 % of the time, regularisation 5e-4; Fang et al., "DepGraph", 2023), on the teacher's answers as all
methods of the comparison do. It is pruned until its multiply-accumulates meet the budget, in both of the library's
ways: by as much of every layer, its default, and globally, as in its experiments.
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
import torch.nn.functional as functional
import torch_pruning
from onnx import numpy_helper
from torch import Tensor, nn

from benchmarks.base_export import write
from benchmarks.base_networks import NETWORKS, CifarNet, multiplications

#: As the library's experiments have them.
RATE, MOMENTUM, DECAY, REGULARISATION, FALLS = 0.01, 0.9, 5e-4, 5e-4, (0.6, 0.8)
#: Steps from the whole network to nothing, of which as many are taken as the budget asks for.
STEPS: Final = 400
#: Of the original's answers in the loss, as the recipe's defaults.
TAUGHT, TEMPERATURE = 0.9, 4.0
#: Pixels that a picture moves by at most, and pictures that statistics are measured on.
SHIFT, MEASURED = 2, 1000


def norms(network: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Every norm, with the name of the convolution that it stands behind."""
    convolution = ""
    for name, each in network.named_modules():
        if isinstance(each, nn.Conv2d):
            convolution = name
        elif isinstance(each, nn.BatchNorm2d):
            yield convolution, each


def unfold(network: nn.Module, path: Path, pictures: Tensor) -> None:
    """Take the weights of a file, and give every norm the statistics of what it reads."""
    weights = onnx.load(path).graph.initializer
    stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in weights}
    if isinstance(network, CifarNet):
        network.head.fold()  # as in the file
    state = network.state_dict()
    network.load_state_dict(state | {name: array for name, array in stored.items() if name in state})
    network.eval()
    found = list(norms(network))
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for name, norm in found:  # which changes nothing yet
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
            norm.bias.copy_(stored[f"{name}.weight_bias"])
        hooks = [
            norm.register_forward_hook(
                lambda module, inputs, _: seen.update({module: torch.var_mean(inputs[0], (0, 2, 3), correction=0)})
            )
            for _, norm in found
        ]
        network(pictures)
        for _, norm in found:
            variance, mean = seen[norm]
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)
    for hook in hooks:
        hook.remove()


def moved(pictures: Tensor) -> Tensor:
    """Every picture mirrored or not, and moved by some pixels over zeros."""
    turned = torch.where(torch.rand(len(pictures), 1, 1, 1) < 0.5, pictures.flip(3), pictures)
    padded = functional.pad(turned, (SHIFT,) * 4)
    side = pictures.shape[-1]
    places = torch.randint(0, 2 * SHIFT + 1, (len(pictures), 2)).tolist()
    return torch.stack([each[:, y : y + side, x : x + side] for each, (y, x) in zip(padded, places, strict=True)])


def train(
    network: nn.Module,
    teacher: nn.Module,
    pruner: "torch_pruning.GroupNormPruner",
    data: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch: int,
) -> None:
    """Train sparsely."""
    pictures, labels = data
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(share * steps) for share in FALLS])
    network.train()
    for _ in range(epochs):
        pruner.update_regularizer()
        order = torch.randperm(len(labels))
        for places in order[: len(order) // batch * batch].reshape(-1, batch):
            some = moved(pictures[places])
            with torch.no_grad():
                answers = functional.log_softmax(teacher(some) / TEMPERATURE, 1)
            logits = network(some)
            taught = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, 1), answers, log_target=True, reduction="batchmean"
            )
            loss = (1 - TAUGHT) * functional.cross_entropy(logits, labels[places]) + TAUGHT * TEMPERATURE**2 * taught
            optimizer.zero_grad()
            loss.backward()
            pruner.regularize(network)
            optimizer.step()
            schedule.step()
    network.eval()


def made(network: nn.Module, example: Tensor, *, everywhere: bool) -> "torch_pruning.GroupNormPruner":
    """The library's pruner, whose steps take channels of every layer alike, or wherever they weigh the least."""
    return torch_pruning.pruner.GroupNormPruner(
        network,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
        reg=REGULARISATION,
        global_pruning=everywhere,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[each for each in network.modules() if isinstance(each, nn.Linear)],
    )


def main() -> None:
    """Train one network, prune it in both ways, and export what is left."""
    parser = argparse.ArgumentParser(description="Torch-Pruning's group-sparse trainer, for benchmarks.quality.")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--model", type=Path, required=True, help="its ONNX file")
    parser.add_argument("--data", type=Path, required=True, help=".npz of images as the network reads them, and labels")
    parser.add_argument("--macs", type=float, required=True, help="multiply-accumulates that may stay")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the ONNX files to write")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    with np.load(given.data) as arrays:
        pictures, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    network, teacher = NETWORKS[given.network](), NETWORKS[given.network]()
    for each in (network, teacher):
        unfold(each, given.model, pictures[:MEASURED])
    pruner = made(network, pictures[:1], everywhere=True)
    train(network, teacher, pruner, (pictures, labels), epochs=given.epochs, batch=given.batch)
    for way in ("uniform", "global"):
        small = copy.deepcopy(network)
        pruner = made(small, pictures[:1], everywhere=way == "global")
        while multiplications(small) > given.macs:
            pruner.step()
        write(small, given.out / f"{way}.onnx")


if __name__ == "__main__":
    main()
