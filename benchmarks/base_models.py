"""Trains the CIFAR-10 networks that the benchmarks prune, and exports them to ONNX as users do.

Needs an environment with PyTorch, onnx, onnxscript, onnxruntime, numpy and Pillow (dependency group ``train-speed`` and
onnxruntime) and nothing of this project. DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg. Run, in this
order since the first network teaches the others:

    python -m benchmarks.base_models train cifarnet --data DATA --out RUNS
    python -m benchmarks.base_models train resnet20 --data DATA --out RUNS --teacher RUNS/cifarnet.pt
    python -m benchmarks.base_models train mobilenetv2 --data DATA --out RUNS --teacher RUNS/cifarnet.pt
    python -m benchmarks.base_models export NETWORK --data DATA --out RUNS --models benchmarks/models

Training writes RUNS/NETWORK.pt after every epoch and goes on from there when it is started again with the same options.
Only ``export`` looks at the test part, once.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from benchmarks.base_data import SIDE, Augmentation, Pictures, normalise, read, split
from benchmarks.base_networks import CLASSES, NETWORKS, CifarNet


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum on a rate that rises, stays and falls.

    While the rate rises and stays, the network sees small squares of the pictures, which cost less; in the ``cooldown``
    it sees whole ones. Both ends have a fixed length, so a run can still be made longer until the cooldown begins.
    """

    epochs: int
    warmup: int
    cooldown: int
    batch: int
    #: Highest learning rate, for the mean loss of a batch, and the last one in parts of it.
    rate: float
    final: float
    #: Weight decay, added to the gradient.
    decay: float
    momentum: float
    #: Pixels added on every side by reflection before a square is taken, and the side of that square at first.
    padding: int
    side: int
    #: Rate of the shifts of BatchNorm in multiples of the rate.
    norm_factor: float = 1.0
    smoothing: float = 0.0
    #: Share of the teacher's opinion in the target.
    taught: float = 0.0
    #: Average the weights over steps, slower towards the end, and go on from the average.
    lookahead: bool = False
    seed: int = 0

    def falling(self, epoch: float) -> float:
        """Part of the cooldown that is over."""
        return max(0.0, 1 - (self.epochs - epoch) / self.cooldown)

    def factor(self, epoch: float) -> float:
        """Learning rate in parts of its peak."""
        rising = START + (1 - START) * min(1.0, epoch / self.warmup)
        return rising - (rising - self.final) * self.falling(epoch)


# The rates of cifarnet are airbench94's (K. Jordan, 2024). The other two have not been run at this length yet; large
# batches because small ones lose far more time where other programs use the processor.
RECIPES = {
    "cifarnet": Recipe(
        *(16, 3, 12, 1024, 1.5, 0.07, 1.33e-3, 0.85, 2, 24), norm_factor=64.0, smoothing=0.2, lookahead=True
    ),
    "resnet20": Recipe(24, 1, 18, 512, 0.8, 0.0, 5e-4, 0.9, 2, 32, taught=0.5),
    "mobilenetv2": Recipe(24, 1, 18, 512, 0.6, 0.0, 3e-4, 0.9, 2, 32, taught=0.5),
}
START = 0.2
#: Epochs in which the biases of the whitening layer are trained; afterwards no gradient need reach it.
WHITENING_EPOCHS = 3
LOOKAHEAD_STEPS = 5


def groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with their rates; norms and biases of the plain recipes are not decayed."""
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    # Decay acts multiplied by the rate, so a larger rate takes a smaller decay.
    decay = recipe.decay / recipe.norm_factor if recipe.norm_factor != 1 else 0.0
    return [
        {"params": [p for p in trained if id(p) not in norms], "factor": 1.0, "weight_decay": recipe.decay},
        {"params": [p for p in trained if id(p) in norms], "factor": recipe.norm_factor, "weight_decay": decay},
    ]


def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Share of right answers in single precision."""
    network.eval()
    right = 0
    with torch.no_grad():
        for pixels, labels in zip(pictures.pixels.split(500), pictures.labels.split(500), strict=True):
            right += int((network(normalise(pixels)).argmax(1) == labels).sum())
    return right / len(pictures.labels)


def opinions(teacher: nn.Module, augmentation: Augmentation, size: int = 500) -> Tensor:
    """The teacher's probabilities for each picture, as it is and mirrored; asked once, since it costs half a step."""
    teacher.eval()
    answers = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for places in torch.arange(len(augmentation.padded)).split(size):
            where = torch.full((len(places),), augmentation.padding)
            views = [augmentation.crop(places, where, where, where.bool() & mirrored) for mirrored in (False, True)]
            answers.append(sum(teacher(view).float() for view in views).div(2).softmax(1))
    return torch.cat(answers)


def machine() -> str:
    """Processor and vector unit, which the minutes of a record depend on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    half = " with bf16" if any("avx512_bf16" in line for line in lines) else ""
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{half}"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    draft.replace(path)


def prepare(name: str, recipe: Recipe, pictures: Pictures) -> nn.Module:
    """The network before its first step."""
    torch.manual_seed(recipe.seed)
    network = NETWORKS[name]()
    if isinstance(network, CifarNet):
        network.whiten(normalise(pictures.pixels[:5000]))
    return network.to(memory_format=torch.channels_last)


def load(path: Path, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, and the checkpoint."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    network = NETWORKS[name]()
    network.load_state_dict(state["network"])
    return network.to(memory_format=torch.channels_last), state


def targets_of(pictures: Pictures, recipe: Recipe, augmentation: Augmentation, teacher: Path | None) -> Tensor:
    """Probabilities to learn: the smoothed labels, mixed with the teacher's opinions where there is one."""
    targets = functional.one_hot(pictures.labels, CLASSES) * (1 - recipe.smoothing) + recipe.smoothing / CLASSES
    if teacher is None:
        return targets
    taught = opinions(load(teacher, "cifarnet")[0], augmentation)
    return (1 - recipe.taught) * targets + recipe.taught * taught


class Lookahead:
    """Weights averaged over steps: written back at every fifth step, ever slower (M. Zhang et al., 2019)."""

    def __init__(self, network: nn.Module, average: list[Tensor] | None) -> None:
        self.tensors = [t for t in network.state_dict().values() if t.is_floating_point()]
        self.average = [t.clone() for t in self.tensors] if average is None else average

    def update(self, progress: float) -> None:
        keep = 0.95**LOOKAHEAD_STEPS * progress**3 if progress < 1 else 1.0
        for average, tensor in zip(self.average, self.tensors, strict=True):
            if keep < 1:
                average.lerp_(tensor, 1 - keep)
            tensor.copy_(average)


def epochs(
    network: nn.Module, recipe: Recipe, augmentation: Augmentation, state: dict[str, Any]
) -> Iterator[tuple[float, float]]:
    """Train, from where ``state`` left off; after each epoch ``state`` is up to date and (loss, seconds) come out."""
    optimizer = torch.optim.SGD(groups(network, recipe), recipe.rate, momentum=recipe.momentum, nesterov=True)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    lookahead = Lookahead(network, state.get("average")) if recipe.lookahead else None
    targets, per_epoch = state["targets"], len(augmentation.padded) // recipe.batch
    for epoch in range(state["epoch"], recipe.epochs):
        start, losses = time.perf_counter(), []
        if isinstance(network, CifarNet) and epoch >= WHITENING_EPOCHS:
            network.whitening.bias.requires_grad_(False)
        network.train()
        side = recipe.side if epoch < recipe.epochs - recipe.cooldown else SIDE
        for number, (places, pictures) in enumerate(augmentation.batches(epoch, recipe.batch, side)):
            now = epoch + number / per_epoch
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * group["factor"] * recipe.factor(now)
            with torch.autocast("cpu", torch.bfloat16):
                answers = network(pictures)
            loss = functional.cross_entropy(answers.float(), targets[places])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if lookahead and (number + 1) % LOOKAHEAD_STEPS == 0:
                lookahead.update(recipe.falling(now))
        if lookahead and epoch + 1 == recipe.epochs:
            lookahead.update(1.0)
        seconds = time.perf_counter() - start
        state.update(epoch=epoch + 1, network=network.state_dict(), optimizer=optimizer.state_dict())
        state.update(seconds=state["seconds"] + seconds, average=lookahead.average if lookahead else None)
        yield sum(losses) / len(losses), seconds


def train(name: str, recipe: Recipe, data: Path, out: Path, teacher: Path | None, threads: int) -> None:
    """Train to the end of the recipe; OUT/NAME.pt is written and a line is logged after every epoch."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    pictures, held_out = split(read(data, "train"))
    augmentation = Augmentation(pictures, recipe.padding, recipe.seed)
    path, options = out / f"{name}.pt", {**asdict(recipe), "taught": recipe.taught if teacher else 0.0}
    if path.exists():
        network, state = load(path, name)
        # Another length is the same run until the cooldown of the shorter one begins.
        lengths = {"epochs": recipe.epochs, "cooldown": recipe.cooldown}
        start = min(recipe.epochs - recipe.cooldown, state["options"]["epochs"] - state["options"]["cooldown"])
        if {**state["options"], **lengths} != options or (state["options"] != options and state["epoch"] > start):
            raise SystemExit(f"{path} was made with other options: {state['options']}")
        state["options"] = options
    else:
        network = prepare(name, recipe, pictures)
        state = {"options": options, "epoch": 0, "seconds": 0.0, "threads": threads, "machine": machine()}
        start = time.perf_counter()
        state["targets"] = targets_of(pictures, recipe, augmentation, teacher)
        state["seconds"] = time.perf_counter() - start
    for loss, seconds in epochs(network, recipe, augmentation, state):
        state["held_out"] = accuracy(network, held_out)
        line = f"{name} epoch {state['epoch']}/{recipe.epochs}: loss {loss:.4f}, held-out {state['held_out']:.4f}"
        line += f", {seconds:.1f} s"
        print(line, flush=True)
        with (out / f"{name}.log").open("a") as log:
            log.write(line + "\n")
        save(path, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "export"))
    parser.add_argument("network", choices=tuple(NETWORKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--teacher", type=Path, help="checkpoint of cifarnet")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--cooldown", type=int, help="epochs in which the rate falls, instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=Path, default=Path("benchmarks/models"), help="folder of exported files")
    options = parser.parse_args()
    recipe = replace(RECIPES[options.network], seed=options.seed)
    recipe = replace(recipe, epochs=options.epochs or recipe.epochs, cooldown=options.cooldown or recipe.cooldown)
    if options.action == "train":
        train(options.network, recipe, options.data, options.out, options.teacher, options.threads)
    else:
        # Imported here so that training needs no onnxruntime.
        from benchmarks.base_export import export

        network, state = load(options.out / f"{options.network}.pt", options.network)
        if state["epoch"] < state["options"]["epochs"]:
            raise SystemExit(
                f"{options.network} is trained for {state['epoch']} of {state['options']['epochs']} epochs"
            )
        export(options.network, network, state, options.data, options.models)


if __name__ == "__main__":
    main()
