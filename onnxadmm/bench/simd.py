"""What this machine computes with: processor name, usable threads, and floats per vector register.

The float32 width is the block in which onnxruntime's CPU kernels lay out channels, so kept channel counts at
multiples of it are where time is won.
"""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnxadmm.runtime.cores import usable_cores

_CPUINFO: Final = Path("/proc/cpuinfo")
_SYSCTL_SECONDS: Final = 5.0

# Feature numbers of IsProcessorFeaturePresent (winnt.h).
_WINDOWS_AVX: Final = 39
_WINDOWS_AVX2: Final = 40
_WINDOWS_AVX512F: Final = 41

_ARM: Final = ("aarch64", "arm64", "armv7l", "armv8l")


@dataclass(frozen=True)
class Simd:
    """A vector unit: its name and how many float32 fit into one register (1 when none is known)."""

    name: str
    floats: int


_AVX512: Final = Simd("AVX-512", 16)
_AVX2: Final = Simd("AVX2", 8)
_AVX: Final = Simd("AVX", 8)
_SSE2: Final = Simd("SSE2", 4)
_NEON: Final = Simd("NEON", 4)
_UNKNOWN: Final = Simd("unknown", 1)


@dataclass(frozen=True)
class Machine:
    """The machine a figure was measured on.

    Attributes:
        cpu: processor name as the system gives it.
        platform: system, release and architecture.
        threads: logical processors this process may use, see ``usable_cores``.
        simd: name of the widest vector unit.
        simd_floats: float32 values per vector register: 16 AVX-512, 8 AVX and AVX2, 4 SSE and NEON, 1 unknown.
    """

    cpu: str
    platform: str
    threads: int
    simd: str
    simd_floats: int


def this_machine() -> Machine:
    """Describe the machine this process runs on; never fails, says ``unknown`` where the system does not tell."""
    cpu, simd = _cpu_and_simd()
    return Machine(
        cpu=cpu,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        threads=usable_cores(),
        simd=simd.name,
        simd_floats=simd.floats,
    )


def simd_from_features(features: set[str]) -> Simd:
    """Widest vector unit among feature words of /proc/cpuinfo (``flags`` on x86, ``Features`` on ARM)."""
    for word, simd in (
        ("avx512f", _AVX512),
        ("avx2", _AVX2),
        ("avx", _AVX),
        ("sse2", _SSE2),
        ("asimd", _NEON),
        ("neon", _NEON),
    ):
        if word in features:
            return simd
    return _UNKNOWN


def parse_cpuinfo(text: str) -> tuple[str, Simd]:
    """Processor name and vector unit from the text of /proc/cpuinfo; the first processor speaks for all."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    features = fields.get("flags", "") + " " + fields.get("features", "")
    # ARM kernels give no model name for a core; "hardware" is the board, which is still a name.
    name = fields.get("model name") or fields.get("hardware") or fields.get("cpu model") or ""
    return name, simd_from_features(set(features.lower().split()))


def parse_sysctl(values: Mapping[str, str], *, architecture: str) -> tuple[str, Simd]:
    """Processor name and vector unit from macOS ``sysctl`` values, keyed like ``hw.optional.avx2_0``."""
    name = values.get("machdep.cpu.brand_string", "")
    if architecture.lower() in _ARM:
        return name, _NEON
    for key, simd in (("hw.optional.avx512f", _AVX512), ("hw.optional.avx2_0", _AVX2), ("hw.optional.avx1_0", _AVX)):
        if values.get(key) == "1":
            return name, simd
    return name, _SSE2


def _cpu_and_simd() -> tuple[str, Simd]:
    if sys.platform == "linux":
        name, simd = parse_cpuinfo(_CPUINFO.read_text(errors="replace")) if _CPUINFO.exists() else ("", _UNKNOWN)
    elif sys.platform == "darwin":
        name, simd = parse_sysctl(_read_sysctl(), architecture=platform.machine())
    elif sys.platform == "win32":
        name, simd = platform.processor(), _windows_simd()
    else:
        name, simd = platform.processor(), _UNKNOWN
    # 64-bit ARM always has NEON, and x86-64 always has SSE2, whatever the system leaves out.
    if simd is _UNKNOWN:
        architecture = platform.machine().lower()
        if architecture in ("aarch64", "arm64"):
            simd = _NEON
        elif architecture in ("x86_64", "amd64"):
            simd = _SSE2
    return name or platform.processor() or platform.machine() or "unknown", simd


def _read_sysctl() -> dict[str, str]:
    keys = ("machdep.cpu.brand_string", "hw.optional.avx512f", "hw.optional.avx2_0", "hw.optional.avx1_0")
    values = {}
    for key in keys:
        try:
            done = subprocess.run(
                ["/usr/sbin/sysctl", "-n", key],
                capture_output=True,
                text=True,
                timeout=_SYSCTL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            values[key] = done.stdout.strip()
    return values


def _windows_simd() -> Simd:
    if sys.platform != "win32":
        return _UNKNOWN
    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    for feature, simd in ((_WINDOWS_AVX512F, _AVX512), (_WINDOWS_AVX2, _AVX2), (_WINDOWS_AVX, _AVX)):
        if present(feature):
            return simd
    return _UNKNOWN
