"""Which versions of what are installed: for reports, and for the doctor."""

import importlib.metadata
import platform
from collections.abc import Iterable
from importlib.metadata import Distribution
from typing import Final

# Distributions that hold something else under a similar name are told apart by this file.
_MODULE_FILE: Final = "onnxruntime/__init__.py"
_PACKAGES: Final = (
    "onnxadmm",
    "jinja2",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxsim",
    "pillow",
    "platformdirs",
    "rich",
    "typer",
)


def package_versions() -> dict[str, str]:
    """Versions of Python, of the packages that matter, and of what provides onnxruntime, for reports."""
    installed = tuple(importlib.metadata.distributions())
    versions = {name: version for name, version in versions_of(installed).items() if version is not None}
    providers = {distribution_name(item): item.version for item in installed if provides_runtime(item)}
    return {"python": platform.python_version(), **versions, **providers}


def versions_of(installed: Iterable[Distribution]) -> dict[str, str | None]:
    """Versions of the packages that matter among some distributions; None where one is missing."""
    versions: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for distribution in installed:
        name = distribution_name(distribution)
        if name in versions and versions[name] is None:
            versions[name] = distribution.version
    return versions


def distribution_name(distribution: Distribution) -> str:
    """Name of a distribution, lower case with hyphens."""
    # A broken dist-info folder has no name; it provides nothing either.
    return (distribution.metadata["Name"] or "").lower().replace("_", "-").replace(".", "-")


def provides_runtime(distribution: Distribution) -> bool:
    """Whether a distribution installs the module ``onnxruntime``."""
    name = distribution_name(distribution)
    if not (name.startswith("ort-") or "onnxruntime" in name):
        return False
    return any(file.as_posix() == _MODULE_FILE for file in distribution.files or ())
