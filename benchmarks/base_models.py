"""Trains the CIFAR-10 networks that the benchmarks prune, and exports them to ONNX as users do.

Needs an environment with PyTorch, onnx, onnxscript, onnxruntime, numpy and Pillow (dependency group ``train-speed`` and
onnxruntime) and nothing of this project. DATA is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg. A wide network
is trained first and answers every view of every picture; the other three learn from its answers. Run, in this order:

    python -m benchmarks.base_models train teacher --data DATA --out RUNS --device cuda
    python -m benchmarks.base_models answer --data DATA --out RUNS --device cuda
    python -m benchmarks.base_models train cifarnet --data DATA --out RUNS --device cuda
    python -m benchmarks.base_models train resnet20 --data DATA --out RUNS --device cuda
    python -m benchmarks.base_models train mobilenetv2 --data DATA --out RUNS --device cuda
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
    """How a network is trained: SGD with Nesterov momentum on a rate that rises and falls in straight lines."""

    epochs: int
    batch: int
    #: Highest learning rate, for the mean loss of a batch.
    rate: float
    #: Weight decay, added to the gradient; norms are not decayed.
    decay: float
    #: Pixels added on every side by reflection before a square is taken.
    padding: int
    #: Share of the teacher's answers in the loss, and the temperature at which they are compared.
    taught: float = 0.0
    temperature: float = 4.0
    #: Paste a rectangle of another picture into every picture of every other batch (CutMix, Yun et al., 2019).
    cutmix: bool = False
    momentum: float = 0.9
    seed: int = 0

    def factor(self, epoch: float) -> float:
        """Learning rate in parts of its peak."""
        return min(START + epoch / WARMUP, 1.0, (self.epochs - epoch) / (self.epochs - WARMUP))


#: Epochs in which the rate rises, and the first rate in parts of the highest.
WARMUP, START = 3, 0.03
#: The answers of the teacher are kept for every view, so all that learn from them are shifted by as much.
SHIFT = 2
RECIPES = {
    "teacher": Recipe(60, 512, 0.4, 5e-4, 4, cutmix=True),
    "cifarnet": Recipe(192, 512, 0.2, 5e-4, SHIFT, 0.9),
    "resnet20": Recipe(192, 512, 0.2, 5e-4, SHIFT, 0.9),
    "mobilenetv2": Recipe(192, 512, 0.2, 3e-4, SHIFT, 0.9),
}


def groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with and without decay."""
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in norms], "weight_decay": recipe.decay},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]


def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Share of right answers in single precision."""
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=pictures.labels.device)
    with torch.no_grad():
        for pixels, labels in zip(pictures.pixels.split(500), pictures.labels.split(500), strict=True):
            right += (network(normalise(pixels)).argmax(1) == labels).sum()
    return int(right) / len(pictures.labels)


def machine(device: str) -> str:
    """What the minutes of a record depend on."""
    if device != "cpu":
        return str(torch.cuda.get_device_name())
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    half = " with bf16" if any("avx512_bf16" in line for line in lines) else ""
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{half}, {torch.get_num_threads()} threads"


def save(path: Path, state: Any) -> None:
    """Write a checkpoint so that an interruption leaves the old one whole."""
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    draft.replace(path)


def prepare(name: str, recipe: Recipe, pictures: Pictures) -> nn.Module:
    """The network before its first step."""
    torch.manual_seed(recipe.seed)
    network = NETWORKS[name]()
    if isinstance(network, CifarNet):
        network.whiten(normalise(pictures.pixels[:5000].cpu()))
    return network.to(pictures.pixels.device, memory_format=torch.channels_last)


def load(path: Path, name: str, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint, and the checkpoint."""
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    network = NETWORKS[name]()
    network.load_state_dict(state["network"])
    return network.to(device, memory_format=torch.channels_last), state


def answer(network: nn.Module, augmentation: Augmentation, size: int = 2000) -> Tensor:
    """Logits of the teacher for each view of each picture: (views, pictures, classes) in half precision.

    Every later batch finds the answers to exactly what it sees (a consistent teacher: Beyer et al., 2022), and the
    teacher has run once for all of them.
    """
    network.eval()
    device, count = augmentation.padded.device, len(augmentation.padded)
    answers = torch.empty(augmentation.views, count, CLASSES, dtype=torch.float16, device=device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for view in range(augmentation.views):
            for places in torch.arange(count, device=device).split(size):
                pictures = augmentation.crop(places, torch.full_like(places, view))
                answers[view, places] = network(pictures).half()
    return answers


def rectangle(generator: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a rectangle with a uniformly drawn share of the picture, clipped where it reaches out."""
    share, down, right = torch.rand(3, generator=generator).tolist()
    half = SIDE * share**0.5 / 2
    rows, columns = (slice(max(0, round(at * SIDE - half)), round(at * SIDE + half)) for at in (down, right))
    return rows, columns


def mixed(x: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures with a rectangle of the next one of the batch in each, and targets by the shares of both."""
    rows, columns = rectangle(generator)
    other = x.roll(1, 0)
    area = other[0, 0, rows, columns].numel() / SIDE**2
    x = x.clone()
    x[:, :, rows, columns] = other[:, :, rows, columns]
    return x, (1 - area) * targets + area * targets.roll(1, 0)


def loss_of(logits: Tensor, targets: Tensor, taught: Tensor | None, recipe: Recipe) -> Tensor:
    """Cross-entropy with targets (probabilities), and with the teacher's answers at a temperature (Hinton, 2015)."""
    hard = functional.cross_entropy(logits, targets)
    if taught is None:
        return hard
    heat = recipe.temperature
    soft = functional.cross_entropy(logits / heat, (taught.float() / heat).softmax(1))
    return (1 - recipe.taught) * hard + recipe.taught * heat**2 * soft


def epochs(
    network: nn.Module, recipe: Recipe, pictures: Pictures, taught: Tensor | None, state: dict[str, Any]
) -> Iterator[tuple[float, float]]:
    """Train, from where ``state`` left off; after each epoch ``state`` is up to date and (loss, seconds) come out."""
    optimizer = torch.optim.SGD(groups(network, recipe), recipe.rate, momentum=recipe.momentum, nesterov=True)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    augmentation = Augmentation(pictures, recipe.padding, recipe.seed)
    device, steps = pictures.labels.device, len(pictures.labels) // recipe.batch
    labels = functional.one_hot(pictures.labels, CLASSES).float()
    for epoch in range(state["epoch"], recipe.epochs):
        start, total = time.perf_counter(), torch.zeros((), device=device)
        network.train()
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        for number, (places, views) in enumerate(augmentation.batches(epoch, recipe.batch)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * recipe.factor(epoch + number / steps)
            x, targets = augmentation.crop(places, views), labels[places]
            if recipe.cutmix and number % 2:
                x, targets = mixed(x, targets, generator)
            with torch.autocast(device.type, torch.bfloat16):
                logits = network(x)
            answers = None if taught is None else taught[views, places]
            loss = loss_of(logits.float(), targets, answers, recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean = float(total) / steps
        seconds = time.perf_counter() - start
        state.update(epoch=epoch + 1, network=network.state_dict(), optimizer=optimizer.state_dict())
        state.update(seconds=state["seconds"] + seconds)
        yield mean, seconds


def train(name: str, recipe: Recipe, data: Path, out: Path, device: str) -> None:
    """Train to the end of the recipe; OUT/NAME.pt is written and a line is logged after every epoch."""
    out.mkdir(parents=True, exist_ok=True)
    pictures, held_out = (part.to(device) for part in split(read(data, "train")))
    path, options = out / f"{name}.pt", asdict(recipe)
    taught = torch.load(out / "answers.pt", weights_only=True, map_location=device) if recipe.taught else None
    if path.exists():
        network, state = load(path, name, device)
        if state["options"] != options:
            raise SystemExit(f"{path} was made with other options: {state['options']}")
    else:
        network = prepare(name, recipe, pictures)
        state = {"options": options, "epoch": 0, "seconds": 0.0, "machine": machine(device)}
    for loss, seconds in epochs(network, recipe, pictures, taught, state):
        state["held_out"] = accuracy(network, held_out)
        line = f"{name} epoch {state['epoch']}/{recipe.epochs}: loss {loss:.4f}, held-out {state['held_out']:.4f}"
        line += f", {seconds:.1f} s"
        print(line, flush=True)
        with (out / f"{name}.log").open("a") as log:
            log.write(line + "\n")
        save(path, state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "answer", "export"))
    parser.add_argument("network", nargs="?", choices=tuple(NETWORKS), default="teacher")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--models", type=Path, default=Path("benchmarks/models"), help="folder of exported files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = replace(RECIPES[options.network], seed=options.seed)
    recipe = replace(recipe, epochs=options.epochs or recipe.epochs)
    if options.action == "train":
        train(options.network, recipe, options.data, options.out, options.device)
        return
    network, state = load(options.out / f"{options.network}.pt", options.network, options.device)
    if state["epoch"] < state["options"]["epochs"]:
        raise SystemExit(f"{options.network} is trained for {state['epoch']} of {state['options']['epochs']} epochs")
    if options.action == "answer":
        pictures, _ = split(read(options.data, "train"))
        save(options.out / "answers.pt", answer(network, Augmentation(pictures.to(options.device), SHIFT, 0)).cpu())
    else:
        # Imported here so that training needs no onnxruntime.
        from benchmarks.base_export import export

        export(options.network, network, state, options.data, options.models)


if __name__ == "__main__":
    main()
