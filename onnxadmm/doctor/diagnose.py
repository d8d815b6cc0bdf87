"""Is this installation sound, can it train, and what does the machine offer? Each finding comes with a way out.

The module ``onnxruntime`` is provided by several distributions that overwrite each other's files. So it is looked at
from three sides: which distributions claim it, whether the files on disk are the ones they installed, and whether a
training step works, taken in a child process so that a crash becomes a sentence.
"""

import base64
import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackagePath
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxadmm.bench.simd import Machine, this_machine
from onnxadmm.bench.versions import distribution_name, provides_runtime, versions_of
from onnxadmm.child_process import command, ending, environment
from onnxadmm.report.codec import encode
from onnxadmm.report.escaping import shown
from onnxadmm.report.words import plural

_RECOMMENDED: Final = "onnxruntime-training-cpu==1.19.2"
_NATIVE_SUFFIXES: Final = (".so", ".pyd", ".dylib", ".dll")
# CUDA libraries have hundreds of megabytes; their size tells enough.
_HASHED_BYTES: Final = 64 * 2**20
_CHILD_SECONDS: Final = 120.0
#: What the child process runs.
PROGRAM: Final = ("-m", "onnxadmm.doctor.child")

Status = Literal["ok", "limited", "problem"]


@dataclass(frozen=True)
class Provider:
    """A distribution that installs the module ``onnxruntime``.

    Attributes:
        name: of the distribution, lower case with hyphens.
        version: of the distribution.
        damaged: files that are missing or not the ones it installed.
    """

    name: str
    version: str
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class TrainingTrial:
    """What came out of importing onnxruntime and training in a child process.

    Attributes:
        runtime: version of the module that imports, None when it does not.
        training: the training step worked.
        found: what happened, in words.
        exact_bytes: onnxruntime adds up products of bytes exactly on this processor; None when it was not found out.
    """

    runtime: str | None
    training: bool
    found: str
    exact_bytes: bool | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: ``"ok"``; ``"limited"``: works as far as this platform allows; ``"problem"``: should be mended.
        found: what there is.
        way_out: what to do about it, None when it is ok.
    """

    name: str
    status: Status
    found: str
    way_out: str | None

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.way_out is None):
            raise ValueError(f"{self.name}: what is not ok needs a way out, and only that")


@dataclass(frozen=True)
class Diagnosis:
    """Everything the doctor looked at.

    Attributes:
        python: version of the interpreter.
        versions: of the packages that matter, and of the module ``onnxruntime``; None where one is missing.
        providers: distributions that install the module ``onnxruntime``.
        machine: processor, threads and vector unit.
        findings: what was looked at, in order.
    """

    python: str
    versions: Mapping[str, str | None]
    providers: tuple[Provider, ...]
    machine: Machine
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing needs mending."""
        return all(finding.status != "problem" for finding in self.findings)


def diagnose(
    *,
    distributions: Callable[[], Iterable[Distribution]] = importlib.metadata.distributions,
    trial: Callable[[], TrainingTrial] | None = None,
) -> Diagnosis:
    """Look at everything; takes a few seconds, as a training step is really taken.

    Args:
        distributions: what is installed.
        trial: imports onnxruntime and trains; ``try_training`` unless given.
    """
    installed = tuple(distributions())
    providers = find_providers(installed)
    tried = (trial or try_training)()
    versions = {**versions_of(installed), "onnxruntime": tried.runtime}
    machine = this_machine()
    findings = (
        *_about_packages(versions),
        _about_providers(providers),
        *(_about_damage(provider) for provider in providers if provider.damaged),
        _about_training(providers, tried),
        Finding("threads", "ok", f"{plural(machine.threads, 'thread')} on {machine.cpu}", None),
        _about_simd(machine),
        *_about_bytes(tried),
    )
    return Diagnosis(platform.python_version(), versions, providers, machine, findings)


def find_providers(installed: Iterable[Distribution]) -> tuple[Provider, ...]:
    """Distributions that install the module ``onnxruntime``, by name."""
    found: dict[str, Provider] = {}
    for distribution in installed:
        name = distribution_name(distribution)
        # Of two with one name the first on the path counts, as it does for an import.
        if name not in found and provides_runtime(distribution):
            found[name] = Provider(name, distribution.version, tuple(_damaged(distribution)))
    return tuple(found[name] for name in sorted(found))


def training_wheels_exist(*, version: tuple[int, int], system: str, architecture: str) -> bool:
    """Whether there are training wheels: CPython up to 3.12 on Linux x86-64, macOS and Windows."""
    if version >= (3, 13):
        return False
    return system in ("darwin", "win32") or (system == "linux" and architecture.lower() in ("x86_64", "amd64"))


def try_training(*, program: Sequence[str] = PROGRAM, seconds: float = _CHILD_SECONDS) -> TrainingTrial:
    """Import onnxruntime and take a training step in a child process.

    Args:
        program: words of the interpreter's command line; what it runs prints one JSON object per line.
        seconds: after this long it is given up.
    """
    try:
        done = subprocess.run(
            command(*program),
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TrainingTrial(None, False, f"the training step did not end within {seconds:.0f} s")
    except OSError as error:
        return TrainingTrial(None, False, f"no child process could be started ({error.strerror})")
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            said.update(json.loads(line))
    runtime = said.get("runtime")
    if "found" in said and done.returncode == 0:
        return TrainingTrial(runtime, bool(said["training"]), str(said["found"]), said.get("exact_bytes"))
    what = "importing onnxruntime" if runtime is None else "the training step"
    return TrainingTrial(runtime, False, f"{what} ended in {ending(done.returncode, done.stderr)}")


def to_document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON objects."""
    return {"ok": diagnosis.ok, **encode(diagnosis)}


def diagnosis_view(diagnosis: Diagnosis) -> RenderableType:
    """The diagnosis for the console."""
    # Run from its source folder, this package is not installed and has no version to show.
    present = ((name, version) for name, version in diagnosis.versions.items() if version or name != "onnxadmm")
    versions = ", ".join(f"{name} {version or '(missing)'}" for name, version in present)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"ok": "green", "limited": "yellow", "problem": "bold red"}
    for finding in diagnosis.findings:
        said = finding.found if finding.way_out is None else f"{finding.found}; {finding.way_out}"
        table.add_row(Text(finding.status, style=styles[finding.status]), shown(finding.name), shown(said))
    verdict = (
        Text("All is well.", style="green") if diagnosis.ok else Text("Something needs mending.", style="bold red")
    )
    head = shown(f"Python {diagnosis.python} on {diagnosis.machine.platform}; {versions}", style="dim")
    return Group(head, table, verdict)


def _about_packages(versions: Mapping[str, str | None]) -> Iterator[Finding]:
    missing = [
        name for name, version in versions.items() if version is None and name not in ("onnxruntime", "onnxadmm")
    ]
    if missing:
        yield Finding("packages", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", "ok", "all are installed", None)


def _about_providers(providers: tuple[Provider, ...]) -> Finding:
    listing = ", ".join(f"{provider.name} {provider.version}" for provider in providers)
    if len(providers) == 1:
        return Finding("onnxruntime", "ok", f"provided by {listing}", None)
    install = _RECOMMENDED if _wheels_exist_here() else "onnxruntime"
    if not providers:
        return Finding("onnxruntime", "problem", "no distribution provides it", f"pip install {install}")
    names = " ".join(provider.name for provider in providers)
    return Finding(
        "onnxruntime",
        "problem",
        f"{len(providers)} distributions overwrite each other's files: {listing}",
        f"pip uninstall -y {names}, then pip install {install}",
    )


def _about_damage(provider: Provider) -> Finding:
    first = ", ".join(provider.damaged[:3])
    more = f" and {len(provider.damaged) - 3} more" if len(provider.damaged) > 3 else ""
    files = plural(len(provider.damaged), "file")
    return Finding(
        "installed files",
        "problem",
        f"{files} not as {provider.name} {provider.version} installed them: {first}{more}",
        f"pip uninstall -y {provider.name}, then pip install {provider.name}=={provider.version}",
    )


def _about_training(providers: tuple[Provider, ...], tried: TrainingTrial) -> Finding:
    if tried.training:
        return Finding("training", "ok", tried.found, None)
    names = " ".join(provider.name for provider in providers)
    install = f"pip install {_RECOMMENDED if _wheels_exist_here() else 'onnxruntime'}"
    way_out = f"pip uninstall -y {names}, then {install}" if names else install
    return Finding("training", "problem", tried.found, way_out)


def _about_simd(machine: Machine) -> Finding:
    if machine.simd_floats == 1:
        way_out = "give --round-to yourself if you know the vector width"
        return Finding("vector unit", "limited", "unknown, so channels are not rounded to a block", way_out)
    return Finding("vector unit", "ok", f"{machine.simd}, {machine.simd_floats} floats per register", None)


def _about_bytes(tried: TrainingTrial) -> Iterator[Finding]:
    if tried.exact_bytes:
        yield Finding("quantised networks", "ok", "sums of byte products are exact", None)
    elif tried.exact_bytes is not None:
        yield Finding(
            "quantised networks",
            "limited",
            "onnxruntime cuts off sums of byte products on this processor, which has no VNNI",
            "measure their accuracy on the processor that will run them; proofs use exact sums on every one",
        )


def _wheels_exist_here() -> bool:
    return training_wheels_exist(version=sys.version_info[:2], system=sys.platform, architecture=platform.machine())


def _damaged(distribution: Distribution) -> Iterator[str]:
    """Files of the module's core that are missing, or differ from what was installed in size or content."""
    for file in distribution.files or ():
        core = len(file.parts) == 2 or file.parts[1:2] == ("capi",)
        if file.parts[0] != "onnxruntime" or not core or file.suffix not in (".py", *_NATIVE_SUFFIXES):
            continue
        if not _is_as_installed(file):
            yield file.as_posix()


def _is_as_installed(file: PackagePath) -> bool:
    path = Path(str(file.locate()))
    try:
        size = path.stat().st_size
        if file.size is not None and size != file.size:
            return False
        if file.hash is None or file.hash.mode not in hashlib.algorithms_available or size > _HASHED_BYTES:
            return True
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value
