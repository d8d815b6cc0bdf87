"""``onnxadmm bench``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxadmm.cli.options import (
    CustomOpsOption,
    InputOption,
    InputShapeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    read_inputs,
    read_shapes,
)
from onnxadmm.console import print_json, progress_of, stdout_console


def run(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="the first one is the yardstick")],
    batch: Annotated[int, typer.Option("--batch", help="the larger batch size beside 1")] = 64,
    threads: Annotated[int, typer.Option("--threads", help="of one operator")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="time per batch size")] = 3.0,
    inputs: InputOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time models side by side on this CPU."""
    from onnxadmm.bench.latency import measure_latency
    from onnxadmm.report.table import latency_table
    from onnxadmm.runtime.custom_ops import custom_operators
    from onnxadmm.surgery import opened

    shapes = read_shapes(input_shape)
    with custom_operators(custom_ops or ()), progress_of(quiet=quiet) as progress:
        latencies = measure_latency(
            [opened(path, shapes) for path in models],
            names=[str(path) for path in models],
            large=batch,
            threads=threads,
            seconds=seconds,
            seed=seed,
            inputs=read_inputs(inputs),
            progress=progress,
        )
    if as_json:
        print_json(latencies)
    else:
        stdout_console().print(latency_table(latencies))
