"""``onnxadmm quantize``."""

from typing import Annotated

import typer

from onnxadmm.cli.options import (
    CacheOption,
    CropOption,
    CustomOpsOption,
    ForceOption,
    InputOption,
    InputShapeOption,
    JsonOption,
    MaxBadOption,
    MetricOption,
    ModelArgument,
    OutputOption,
    QuietOption,
    ResizeOption,
    SeedOption,
    read_inputs,
    read_numbers,
    read_shapes,
)
from onnxadmm.cli.report import print_report
from onnxadmm.console import print_line, progress_of, stdout_console
from onnxadmm.run.recipe import MOST_LOST, Preprocessing, Recipe


def run(
    model: ModelArgument,
    output: OutputOption,
    calibrate: Annotated[str, typer.Option("--calibrate", help="samples, labelled or not: as for compress --data")],
    test: Annotated[str | None, typer.Option("--test", help="test data, for the last line of the report")] = None,
    max_drop: Annotated[
        str,
        typer.Option("--max-drop", help="points (or 2%) of held-out accuracy that may be lost; more stays in floats"),
    ] = f"{MOST_LOST:g}",
    narrow: Annotated[
        bool | None,
        typer.Option("--narrow/--wide", help="weights of 7 bits, for processors without VNNI [as this one needs]"),
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="cross-entropy, mse or bce [what the outputs look like]")
    ] = None,
    metric: MetricOption = None,
    mean: Annotated[str | None, typer.Option("--mean", help="subtracted after scaling: 0.13 or 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option("--std", help="divided by after that")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="factor on stored values [1/255 for bytes]")] = None,
    resize: ResizeOption = None,
    crop: CropOption = None,
    max_bad: MaxBadOption = Preprocessing.max_bad,
    cache: CacheOption = None,
    inputs: InputOption = None,
    seed: SeedOption = 0,
    input_shape: InputShapeOption = None,
    custom_ops: CustomOpsOption = None,
    bench: Annotated[bool, typer.Option("--bench/--no-bench", help="time original and result in the end")] = True,
    bench_batch: Annotated[int, typer.Option("--bench-batch", help="the larger batch size beside 1")] = 64,
    quiet: QuietOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Round to bytes what bears it: a quarter of the size, faster on processors with VNNI."""
    from onnxadmm.quantize import quantize

    with progress_of(quiet=quiet) as progress:
        done = quantize(
            model,
            calibrate,
            out=output,
            test=test,
            max_drop=max_drop,
            narrow=narrow,
            recipe=Recipe(loss=loss, metric=metric),  # type: ignore[arg-type]  # Recipe checks the word
            preprocessing=Preprocessing(
                mean=read_numbers("--mean", mean),
                std=read_numbers("--std", std),
                scale=scale,
                resize=resize,
                crop=crop,
                max_bad=max_bad,
                cache=cache,
            ),
            inputs=read_inputs(inputs),
            seed=seed,
            input_shapes=read_shapes(input_shape),
            custom_ops=custom_ops or (),
            bench=bench,
            bench_batch=bench_batch,
            force=force,
            progress=progress,
        )
    print_report(done.report, as_json=as_json)
    if not as_json:
        print_line(f"{output}: {done.model.file_bytes:,} bytes", stdout_console())
