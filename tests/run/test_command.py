"""The command line in a report makes the run again: read by the command line, it comes to the same choices."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
import typer

import onnxadmm as oa
from onnxadmm.bench.simd import this_machine
from onnxadmm.cli.app import app
from onnxadmm.run.choices import Choices
from onnxadmm.run.command import command_line
from onnxadmm.run.recipe import CalibrationOptions, Preprocessing, Recipe

PLAIN = Choices(
    budget=oa.Budget(params=0.1),
    targets={},
    connection_targets={},
    preset=None,
    inputs={},
    limits=oa.Limits(),
    preprocessing=Preprocessing(),
    calibration=None,
    recipe=Recipe(),
    ignore=(),
    inexact=False,
    features=False,
    simplified=True,
    seed=0,
    input_shapes=None,
    custom_ops=None,
    rules=None,
    teacher=None,
    max_minutes=None,
)
TOLD = {"model": "my model.onnx", "data": "train.npz", "out": "out", "sparse": True, "bench": True}


def words(choices: Choices = PLAIN, **told: Any) -> list[str]:
    return shlex.split(command_line(choices, {**TOLD, **told}))


def test_a_plain_run_names_its_files_budget_and_seed_alone() -> None:
    expected = "onnxadmm compress 'my model.onnx' --data train.npz --out out --params 0.1 --seed 0"
    assert command_line(PLAIN, TOLD) == expected


def test_what_lay_in_memory_is_a_word_in_capitals() -> None:
    assert words(model="in memory: Model", data="in memory: tuple", out=None)[2:5] == ["MODEL", "--data", "DATA"]


def test_how_results_are_timed_is_named_where_it_is_not_as_usual() -> None:
    timed = words(bench_batch=4, bench_threads=97)
    assert timed[-6:] == ["--bench-batch", "4", "--bench-threads", "97", "--seed", "0"]
    assert words(bench_batch=64, bench_threads=this_machine().threads) == words()


EVERYTHING = replace(
    PLAIN,
    budget=oa.Budget(macs="50%", size="2MB", connections="30%"),
    targets={"conv*": 0.5},
    inputs={"scale": 2.0, "size": [1, 2]},
    limits=oa.Limits(2, "90%", 16),
    preprocessing=Preprocessing(mean=[0.1, 0.2], std=[0.3], scale=0.5, augment="flip"),
    recipe=Recipe(
        mode="joint", epochs=3, refit=False, freeze_untrainable=True, workers=2, held_out=0.2, learning_rate=0.01
    ),
    ignore=("a*", "b"),
    inexact=True,
    features=True,
    simplified=False,
    seed=7,
    input_shapes="x:1,3,8,8 z:1,4",
    custom_ops=("ab" * 32,),
    rules=("cd" * 32,),
)
SWITCHES = {
    "sparse": False,
    "single_file": True,
    "bench": False,
    "int8": True,
    "fp16": True,
    "custom_ops": "a.so, b.so",
    "test": "t.npz",
    "teacher": "big.onnx",
}


def test_every_choice_is_an_option_of_compress_with_its_value() -> None:
    told = words(EVERYTHING, **SWITCHES)
    pairs = list(zip(told, [*told[1:], ""], strict=True))
    for pair in (
        ("--test", "t.npz"), ("--teacher", "big.onnx"),
        ("--macs", "50%"), ("--size", "2MB"), ("--connections", "0.3"), ("--target", "conv*=0.5"),
        ("--mean", "0.1,0.2"), ("--std", "0.3"), ("--scale", "0.5"), ("--augment", "flip"), ("--mode", "joint"),
        ("--epochs", "3"), ("--workers", "2"), ("--learning-rate", "0.01"), ("--input", "scale=2.0"),
        ("--input", "size=1,2"), ("--ignore", "a*"), ("--ignore", "b"), ("--custom-ops", "a.so"),
        ("--custom-ops", "b.so"), ("--input-shape", "x:1,3,8,8"), ("--input-shape", "z:1,4"), ("--max-ratio", "0.9"),
        ("--keep-at-least", "2"), ("--round-to", "16"), ("--seed", "7"), ("--rules", "RULES"),
    ):  # fmt: skip
        assert pair in pairs
    for switch in ("--freeze-untrainable", "--inexact", "--no-simplify", "--dense", "--single-file", "--no-bench"):
        assert switch in told
    assert {"--int8", "--fp16", "--features"} <= set(told)
    assert "--held-out" not in told


@pytest.mark.parametrize("told", [words(), words(EVERYTHING, **SWITCHES)], ids=["plain", "everything"])
def test_the_command_line_takes_every_option(told: list[str]) -> None:
    command = typer.main.get_command(app).commands["compress"]  # type: ignore[attr-defined]
    known = {name for field in command.params for name in (*field.opts, *field.secondary_opts)}
    assert {word for word in told if word.startswith("--")} <= known


def test_a_calibration_names_its_effort_and_the_epochs_that_follow() -> None:
    calibrated = replace(
        PLAIN, calibration=CalibrationOptions("best"), recipe=Recipe(distillation=1.0, retrain_epochs=0)
    )
    told = words(calibrated, data=None, calibrate="samples.npz")
    assert " ".join(told[3:]) == "--calibrate samples.npz --out out --params 0.1 --effort best --seed 0"
    learned = replace(calibrated, recipe=Recipe(distillation=1.0, epochs=4, retrain_epochs=4))
    assert "--epochs 4 --seed 0" in " ".join(words(learned, data=None, calibrate="samples.npz"))
    longer = replace(calibrated, recipe=Recipe(distillation=1.0, retrain_epochs=4))
    assert "--retrain-epochs 4" in " ".join(words(longer, data=None, calibrate="samples.npz"))
