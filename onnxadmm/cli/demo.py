"""``onnxadmm demo``."""

from pathlib import Path

from onnxadmm.cli.options import ForceOption, JsonOption, OutOption, SeedOption
from onnxadmm.cli.report import print_report
from onnxadmm.console import ConsoleProgress, stderr_console


def run(
    out: OutOption = Path("out/demo"),
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compress a small network for handwritten digits that comes with the package."""
    from onnxadmm.demo import require_bar, run_demo

    with ConsoleProgress(stderr_console()) as progress:
        report = run_demo(out, seed=seed, force=force, progress=progress)
    print_report(report, as_json=as_json)
    require_bar(report)
