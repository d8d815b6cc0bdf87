"""``onnxadmm doctor``."""

import typer

from onnxadmm.cli.options import JsonOption
from onnxadmm.console import print_json, stdout_console
from onnxadmm.errors import InputError


def run(as_json: JsonOption = False) -> None:
    """Say what is installed, and whether training really works."""
    from onnxadmm.doctor.diagnose import diagnose, diagnosis_view, to_document

    diagnosis = diagnose()
    if as_json:
        print_json(to_document(diagnosis))
    else:
        stdout_console().print(diagnosis_view(diagnosis))
    if not diagnosis.ok:
        raise typer.Exit(InputError.exit_status)
