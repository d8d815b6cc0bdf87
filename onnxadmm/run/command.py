"""The command line that makes a run again, whether it was started there or from Python."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from onnxadmm.bench.simd import this_machine
from onnxadmm.run.choices import Choices, Option
from onnxadmm.run.measure import Timing
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe

#: Fields of a recipe that the command line has no option for.
_PYTHON_ONLY: Final = frozenset(("held_out", "retrain_weight_decay"))
#: What stands for a model or data that lay in memory.
_IN_MEMORY: Final = "in memory: "
_MOST_NUMBERS: Final = 64


def command_line(choices: Choices, told: Mapping[str, Option]) -> str:
    """Return ``onnxadmm compress`` with every option that is not what it would be anyway, quoted for a shell.

    What only Python can give stands as a word in capitals: ``MODEL``, ``DATA``, ``RULES``, ``METRIC``.

    Args:
        choices: what was asked for.
        told: what else of the call the report holds, by name on the command line.
    """
    return shlex.join(["onnxadmm", "compress", _path(told.get("model"), "MODEL"), *_words(choices, told)])


def _words(choices: Choices, told: Mapping[str, Option]) -> Iterator[str]:
    for name in ("data", "calibrate", "test", "teacher", "out"):
        if told.get(name) is not None:
            yield from (f"--{name}", _path(told[name], name.upper()))
    if told.get("expect_accuracy") is not None:
        yield from ("--expect-accuracy", f"{told['expect_accuracy']:g}")
    if choices.budget is not None:
        for kind, amount in choices.budget.amounts.items():
            yield from (f"--{kind}", str(amount))
        if choices.budget.latency_batch != 1:
            yield from ("--latency-batch", str(choices.budget.latency_batch))
        if choices.budget.connections is not None and choices.preset is None:
            yield from ("--connections", f"{choices.budget.connection_share:g}")
    if choices.preset is not None:  # it stands for what follows
        yield from ("--preset", choices.preset)
    else:
        for option, targets in (("--target", choices.targets), ("--connection-target", choices.connection_targets)):
            for pattern, share in targets.items():
                yield from (option, f"{pattern}={share:g}")
    yield from _changed(choices.preprocessing, Preprocessing())
    if choices.calibration is not None:
        yield from _changed(choices.calibration, CalibrationOptions())
    recipe = choices.recipe if choices.preset is None else replace(choices.recipe, method=Recipe.method)
    yield from _of_recipe(recipe, trains=not choices.samples_alone)
    for name, value in choices.inputs.items():
        yield from ("--input", f"{name}={_numbers(value)}")
    for name in ("ignore", "custom_ops"):
        values = choices.ignore if name == "ignore" else str(told.get(name) or "").split(", ")
        for text in filter(None, values):
            yield from (_option(name), text)
    yield from ("--rules", "RULES") if choices.rules else ()
    for text in (choices.input_shapes or "").split():
        yield from ("--input-shape", text)
    usual = replace(choices.limits, keep_at_least=None).under(choices.goal)
    if choices.limits.keep_at_least not in (None, usual.keep_at_least):
        yield from ("--keep-at-least", str(choices.limits.keep_at_least))
    if choices.limits.max_ratio != 1:
        yield from ("--max-ratio", f"{choices.limits.max_ratio:g}")
    # Of its own accord another processor would take its own; a preset says it.
    if choices.limits.round_to is not None and choices.preset is None:
        yield from ("--round-to", str(choices.limits.round_to))
    switches = {
        "--inexact": choices.inexact,
        "--features": choices.features,
        "--no-simplify": not choices.simplified,
        "--dense": told.get("sparse") is False,
        "--single-file": told.get("single_file") is True,
        "--int8": told.get("int8") is True,
        "--fp16": told.get("fp16") is True,
        "--no-bench": told.get("bench") is False,
    }
    yield from (switch for switch, on in switches.items() if on)
    yield from _timed(told)
    yield from ("--seed", str(choices.seed))


def _timed(told: Mapping[str, Option]) -> Iterator[str]:
    """The options of timing, which decide what a budget of latency measures."""
    if told.get("bench_batch", Timing.batch) != Timing.batch:
        yield from ("--bench-batch", str(told["bench_batch"]))
    threads = this_machine().threads
    if told.get("bench_threads", threads) != threads:
        yield from ("--bench-threads", str(told["bench_threads"]))


def _of_recipe(recipe: Recipe, *, trains: bool) -> Iterator[str]:
    if trains:
        yield from _changed(recipe, Recipe())
        return
    # A calibration that ends with a training has the original as its only teacher, for as long as epochs were named.
    like = Recipe(distillation=recipe.distillation, retrain_epochs=recipe.retrain_epochs)
    yield from _changed(recipe, like)
    if recipe.retrain_epochs != (recipe.epochs or 0):
        yield from ("--retrain-epochs", str(recipe.retrain_epochs))


def _changed(chosen: Any, usual: Any) -> Iterator[str]:
    """Yield the options of a dataclass that differ from those of another one of its class."""
    for item in fields(chosen):
        value = getattr(chosen, item.name)
        if value == getattr(usual, item.name) or value is None or item.name in _PYTHON_ONLY:
            continue
        yield _option(item.name if value is not False else f"no_{item.name}")
        if not isinstance(value, bool):
            yield item.name.upper() if callable(value) else _numbers(value)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _path(told: Option, placeholder: str) -> str:
    text = str(told)
    return placeholder if told is None or text.startswith(_IN_MEMORY) else text


def _numbers(value: object) -> str:
    """A value as the command line takes it: numbers with commas between them."""
    if isinstance(value, (str, int, float)):
        return str(value)
    array = np.asarray(value).reshape(-1)
    return "VALUES" if array.size > _MOST_NUMBERS else ",".join(str(number) for number in array.tolist())
