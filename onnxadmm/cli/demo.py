"""``onnxadmm demo``."""

from pathlib import Path

from onnxadmm.cli.options import ForceOption, JsonOption, OutOption, QuietOption, SeedOption
from onnxadmm.cli.report import print_demo_lines, print_next_steps, print_report
from onnxadmm.console import progress_of


def run(
    out: OutOption = Path("out/demo"),
    seed: SeedOption = 0,
    quiet: QuietOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compress a small network for handwritten digits that comes with the package, with training and without."""
    from onnxadmm.demo import demo_lines, require_bar, run_demo, run_demo_untrained, why_untrained

    reason = why_untrained()
    trained = None
    with progress_of(quiet=quiet) as progress:
        if reason is None:
            trained = run_demo(out, seed=seed, force=force, progress=progress)
        else:
            progress.note(f"Shown without training alone: {reason}")
        # Beside the trained network nothing of it is written: it is there for its line of the table.
        untrained = run_demo_untrained(out if trained is None else None, seed=seed, force=force, progress=progress)
    shown = trained if trained is not None else untrained
    print_report(shown.report, as_json=as_json)
    if not as_json:
        print_demo_lines(demo_lines(trained, untrained))
        print_next_steps(shown, out)
    for report in (untrained, trained):
        if report is not None:
            require_bar(report)
