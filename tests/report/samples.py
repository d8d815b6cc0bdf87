"""A report as a run would make it, and hypothesis strategies for any report."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from onnxadmm.bench.identity import ModelIdentity
from onnxadmm.bench.simd import Machine
from onnxadmm.progress import Iteration, Residuals
from onnxadmm.report.layers import ConnectionsLine, LayerLine, ProfileLine, TensorLine, WeightLine
from onnxadmm.report.report import (
    BudgetLine,
    Column,
    GroupLine,
    LatencyLine,
    Option,
    Report,
    Score,
    Spread,
    StageTime,
    VariantLine,
    VerificationLine,
)

ORIGINAL = ModelIdentity("lenet5_mnist.onnx", "ab" * 32, {"": 20}, 10)
RESULT = ModelIdentity("model.onnx", "cd" * 32, {"": 20}, 10)


def iterations() -> tuple[Iteration, ...]:
    """Two iterations of pruning and one of retraining."""
    prune = [
        Iteration(
            stage="prune",
            iteration=number,
            epoch=0.25 * number,
            loss=0.3 / number,
            heldout=0.98 + 0.001 * number,
            learning_rate=0.001,
            neurons=Residuals(12.5 / number, 0.25, 0.0123 * number),
            connections=Residuals(3.25 / number, 0.125, 0.5),
            cost=400_000.0 / number,
            budget=380_000.0 / number,
            kept_units=900 // number,
        )
        for number in (1, 2)
    ]
    retrain = Iteration("retrain", 1, 1.0, 0.05, None, 0.0005, None, None, None, None, None)
    return (*prune, retrain)


def sample_report() -> Report:
    """LeNet-5 at one percent of its parameters."""
    return Report(
        created="2025-01-31T12:00:00+00:00",
        command="onnxadmm compress lenet5_mnist.onnx",
        options={"params": "0.01", "epochs": 5, "mean": 0.1307, "force": False, "teacher": None},
        seed=7,
        versions={"python": "3.11.7", "onnx": "1.17.0", "onnxadmm": "0.1.0"},
        machine=Machine("Intel(R) Xeon(R) Processor", "Linux 6.1 x86_64", 2, "AVX-512", 16),
        before=Column(
            ORIGINAL,
            1_726_863,
            431_080,
            431_080,
            10,
            2_293_000,
            Score("accuracy", 0.9938, 5000),
            Score("accuracy", 0.9942, 10_000),
        ),
        after=Column(
            RESULT,
            19_300,
            4_253,
            4_253,
            10,
            181_984,
            Score("accuracy", 0.9914, 5000),
            Score("accuracy", 0.9917, 10_000),
        ),
        budgets=(BudgetLine("params", "0.01", 4310.8, 431_080, 4_253),),
        latency=(
            LatencyLine(
                1,
                1,
                600,
                Spread(0.11234, 0.11, 0.12),
                Spread(0.0251, 0.024, 0.027),
                speedup=4.47,
                speedup_low=4.4,
                speedup_high=4.5,
            ),
            LatencyLine(
                64,
                1,
                300,
                Spread(6.83, 6.7, 7.1),
                Spread(0.98, 0.97, 1.01),
                speedup=6.97,
                speedup_low=6.9,
                speedup_high=7.05,
            ),
        ),
        verification=VerificationLine(127.3, 2.1e-6, 8, 80.0, True),
        groups=(
            GroupLine("conv1.weight", ("/conv1/Conv",), 20, 5, None, ("conv2.weight",)),
            GroupLine("conv2.weight", ("/conv2/Conv",), 50, 9, None, ("fc1.weight",)),
            GroupLine("fc1.weight", ("/fc1/Gemm",), 500, 21, None, ("fc2.weight",)),
            GroupLine("fc2.weight", ("/fc2/Gemm",), 10, 10, "reaches graph output logits"),
        ),
        simplified=("2 Identity nodes folded",),
        warnings=(),
        history=iterations(),
        stages=(StageTime("load", 0.4), StageTime("prune", 201.0), StageTime("retrain", 160.5)),
        inputs=(TensorLine("x", "float32", ("N", 1, 28, 28)),),
        outputs=(TensorLine("logits", "float32", ("N", 10)),),
        layers=(
            LayerLine("/conv1/Conv", "Conv", "conv1.weight", 20, 5, 520, 130, 288_000, 72_000, 1.5, 0.25),
            LayerLine("/conv2/Conv", "Conv", "conv2.weight", 50, 9, 25_050, 1_134, 1_600_000, 72_000, 4.25, 0.5),
            LayerLine("/fc1/Gemm", "Gemm", "fc1.weight", 500, 21, 400_500, 3_045, 400_000, 3_024, 0.75, 0.0625),
            LayerLine("/fc2/Gemm", "Gemm", "fc2.weight", 10, 10, 5_010, 220, 5_000, 210, None, 0.015625),
        ),
        profile=ProfileLine(64, 1, 100, 0.5, 0.125),
        connections=ConnectionsLine(
            (0.0, 0.5, 1.0, 1.5), (10, 60, 30), (80, 20, 0), (WeightLine("conv1.weight", 100, 100),)
        ),
    )


def sample_in_bytes() -> Report:
    """The same, with the result in bytes beside it: slower than in floats at batch 1, faster at batch 64."""
    report = sample_report()
    one, many = report.latency
    figures = replace(
        report.after,
        model=replace(RESULT, name="model.int8.onnx"),
        file_bytes=7_700,
        nodes=28,
        heldout=Score("accuracy", 0.9910, 5000),
        test=Score("accuracy", 0.9914, 10_000),
    )
    latency = (
        LatencyLine(1, 1, 600, one.after, Spread(0.0333, 0.032, 0.035), 0.75, speedup_low=0.7, speedup_high=0.8),
        LatencyLine(64, 1, 300, many.after, Spread(0.49, 0.48, 0.5), 2.0, speedup_low=1.9, speedup_high=2.1),
    )
    told = ("In bytes 1 operator would cost too much, and kept floats: /fc2/Gemm.",)
    return replace(report, variants=(VariantLine("int8", figures, ("/fc2/Gemm",), latency, told),))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for any type that reports are made of."""
    origin = get_origin(kind)
    if origin is Literal:
        return st.sampled_from(get_args(kind))
    if kind == Option:
        return st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return st.one_of([values_of(item) for item in get_args(kind)])
    if origin is tuple:
        return st.lists(values_of(get_args(kind)[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(st.text(max_size=5), values_of(get_args(kind)[1]), max_size=3)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return (
            st.tuples(*(values_of(hints[field.name]) for field in fields(kind)))
            .map(lambda arguments: _made(kind, arguments))
            .filter(lambda made: made is not None)
        )
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=8),
        int: st.integers(min_value=0, max_value=2**70),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return scalars[kind]


def _made(kind: type, arguments: tuple[Any, ...]) -> Any:
    """An instance; None where the class refuses these values."""
    try:
        return kind(*arguments)
    except ValueError:
        return None
