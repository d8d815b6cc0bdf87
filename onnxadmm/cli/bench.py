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
    from onnxadmm.report.table import latency_table
    from onnxadmm.surgery import bench

    with progress_of(quiet=quiet) as progress:
        latencies = bench(
            models,
            large=batch,
            threads=threads,
            seconds=seconds,
            seed=seed,
            inputs=read_inputs(inputs),
            input_shapes=read_shapes(input_shape),
            custom_ops=custom_ops or (),
            progress=progress,
        )
    if as_json:
        print_json(latencies)
    else:
        stdout_console().print(latency_table(latencies))
