"""The error tree: every refusal is one sentence, and its class carries the exit status.

A message has four parts: the thing, what was expected, what was found, and the way out. Names in it are spelled out
where they hold characters that cannot be seen: a traceback is printed to a terminal as well.
"""

from typing import ClassVar

from onnxadmm.plain_text import spelled_out


class OnnxAdmmError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        thing: what the sentence is about, e.g. ``"model.onnx"`` or ``"--macs"``.
        expected: what would have been accepted, in words and numbers.
        found: what was there instead.
        way_out: what the user can do about it.

    Examples:
        ```python
        try:
            oa.rank("model.onnx", ratio=2)
        except oa.OnnxAdmmError as error:
            print(error, "the command line would end with status", error.exit_status)
        ```
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, thing: str, *, expected: str, found: str, way_out: str) -> None:
        self.thing = thing
        self.expected = expected
        self.found = found
        self.way_out = way_out
        super().__init__(spelled_out(f"{thing}: expected {expected}, found {found}; {way_out}."))


class InputError(OnnxAdmmError):
    """The user's input or options are wrong."""

    exit_status = 2


class ModelFileError(InputError):
    """The model file cannot be read, is not valid ONNX, or its external data is missing or unsafe."""


class DataError(InputError):
    """Training or test data are missing, empty, or do not fit the model."""


class OptionError(InputError):
    """An option has a value that cannot be used."""


class CustomOperatorError(InputError):
    """A custom-operator library is missing, is none, or does not fit the installed onnxruntime."""


class PlanError(InputError):
    """A plan file cannot be read or belongs to another model."""


class CheckpointError(InputError):
    """A checkpoint cannot be read, or is not that of this run."""


class OutputError(InputError):
    """The output cannot be written, or would overwrite something."""


class TrainingUnavailableError(InputError):
    """The installed onnxruntime has no training API."""


class NotTrainableError(InputError):
    """The model contains an operator that training cannot differentiate."""


class NothingToPruneError(OnnxAdmmError):
    """No group of the model may shrink."""

    exit_status = 3


class BudgetError(OnnxAdmmError):
    """The budget cannot be met with the groups that may shrink, or the hours with the fewest epochs that a run has."""

    exit_status = 3


class VerificationError(OnnxAdmmError):
    """The shrunk model does not compute what the masked original computes."""

    exit_status = 4


class WorkerError(OnnxAdmmError):
    """A process that shares the batches of a training did not start, died, failed or hangs."""


class DivergedError(OnnxAdmmError):
    """Training produced NaN or grew without bound; the last good state was kept."""
