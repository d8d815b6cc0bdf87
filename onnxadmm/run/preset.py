"""Settings that belong together under one name: those of a published experiment, for the network it was made with."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import onnx_ir

from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, connection_weights
from onnxadmm.progress import SILENT
from onnxadmm.run.choices import UNIT_SHARES, Choices
from onnxadmm.run.finding import make_ready
from onnxadmm.run.journal import Journal
from onnxadmm.run.recipe import Recipe
from onnxadmm.units.units import find_units

# Lee & Lee, "DNN compression by ADMM-based joint pruning", Knowledge-Based Systems 239, 2022: LeNet-5 on MNIST.
#: Its layers: what they are and the units that they have.
_LAYERS: Final = (("convolution", 20), ("convolution", 50), ("product", 500), ("product", 10))
#: Layer by layer, the units that stay, where some go, and the share of the connections that stays.
_UNITS: Final = (8, None, 50, None)
_CONNECTIONS: Final = (0.2, 0.08, 0.01, 0.07)
#: Share of all connections that stays under one threshold.
_ALL_CONNECTIONS: Final = 0.048


def refuse_beside_preset(name: str, choices: Choices) -> None:
    """Refuse a preset that there is not, and options that say otherwise.

    Args:
        name: of the preset.
        choices: what else was asked for.

    Raises:
        OptionError: so it is.
    """
    if name not in UNIT_SHARES:
        raise OptionError("--preset", expected=", ".join(UNIT_SHARES), found=repr(name), way_out="choose one of them")
    for found, said in (
        ("--calibrate", choices.samples_alone),
        (f"--method {choices.recipe.method}", choices.recipe.method not in (Recipe.method, "paper")),
        ("a budget", choices.budget is not None),
        ("--target", choices.targets),
        ("--connection-target", choices.connection_targets),
        ("--ignore", choices.ignore),
        ("--features", choices.features),
        ("limits of groups", choices.limits not in (Limits(), Limits(round_to=1))),
    ):
        if said:
            raise OptionError(
                f"--preset {name}",
                expected="none of the options that it stands for",
                found=found,
                way_out="leave one of the two out; --mode joint or holistic chooses which of its two settings",
            )


def with_preset(name: str, choices: Choices, model: Model) -> Choices:
    """Return the choices with those of a preset.

    Args:
        name: of the preset.
        choices: what else was asked for, which ``refuse_beside_preset`` has let pass.
        model: as given.

    Raises:
        OptionError: it is not the network that the preset is for.
    """
    weights = _weights_of_lenet5(name, make_ready(model, choices, Journal(SILENT)).model)
    chosen = replace(
        choices,
        preset=name,
        recipe=replace(choices.recipe, method="paper"),
        limits=replace(choices.limits, round_to=1),  # counts are the paper's, whatever the processor likes
    )
    if chosen.recipe.mode == "holistic":
        return replace(chosen, budget=Budget(connections=_ALL_CONNECTIONS))
    patterns = [re.sub(r"([*?[])", r"[\1]", weight) for weight in weights]
    units = zip(patterns, _UNITS, _LAYERS, strict=True)
    return replace(
        chosen,
        targets={pattern: kept / count for pattern, kept, (_, count) in units if kept is not None},
        connection_targets=dict(zip(patterns, _CONNECTIONS, strict=True)),
    )


def _weights_of_lenet5(name: str, model: Model) -> tuple[str, ...]:
    """Return the names of the weights of the four layers, in their order.

    Args:
        model: as it is pruned.
    """
    weights = connection_weights(model)
    found = list(_layers(model, weights))
    units = find_units(model)
    shrinks = [next((group.count for group in units.groups if weight in group.tensors), 0) for weight, _, _ in found]
    counts = [count for _, count in _LAYERS]
    others = set(weights) - {weight for weight, _, _ in found}
    if [(kind, count) for _, kind, count in found] != list(_LAYERS) or shrinks != [*counts[:-1], 0] or others:
        told = ", ".join(f"a {kind} of {count}" for _, kind, count in found[:8]) or "neither"
        raise OptionError(
            f"--preset {name}",
            expected="LeNet-5: convolutions of 20 and 50 channels, then products of 500 and 10 units",
            found=told + ("" if len(found) <= 8 and not others else ", and more"),
            way_out="give --target and --connection-target for the layers of this network",
        )
    return tuple(weight for weight, _, _ in found)


def _layers(model: Model, weights: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Give out the layers of a model in the order of the graph: name of the weight, what it is, and its units."""
    for node in model.ir.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or weight.name not in weights or weight.shape is None:
            continue
        shape = tuple(weight.shape.numpy())
        if node.op_type == "Conv":
            yield weight.name or "", "convolution", shape[0]
        elif node.op_type in ("Gemm", "MatMul") and len(shape) == 2:
            yield weight.name or "", "product", shape[0 if _is_turned(node) else 1]


def _is_turned(node: onnx_ir.Node) -> bool:
    """Whether a product reads its weight ``[outputs, inputs]``."""
    attribute = node.attributes.get("transB")
    return attribute is not None and bool(attribute.as_int())
