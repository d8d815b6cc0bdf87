"""``onnxadmm demo``."""

from pathlib import Path

from onnxadmm.cli.options import ForceOption, JsonOption, OutOption, QuietOption, SeedOption
from onnxadmm.cli.report import print_next_steps, print_report
from onnxadmm.console import progress_of


def run(
    out: OutOption = Path("out/demo"),
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compress a small network for handwritten digits that comes with the package."""
    from onnxadmm.demo import require_bar, run_demo

    with progress_of(quiet=quiet) as progress:
        report = run_demo(out, seed=seed, force=force, progress=progress)
    print_report(report, as_json=as_json)
    if not as_json:
        print_next_steps(report, out)
    require_bar(report)
