"""The command line: one module for each verb; ``app`` lists them and turns errors into exit statuses."""

from onnxadmm.cli.app import main

__all__ = ["main"]
