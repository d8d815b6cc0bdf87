"""Processor facts from sample texts of real machines."""

import pytest

from onnxadmm.bench.simd import Simd, parse_cpuinfo, parse_sysctl, simd_from_features, this_machine
from onnxadmm.runtime.cores import usable_cores

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor @ 2.30GHz
flags\t\t: fpu vme sse sse2 ssse3 fma avx f16c avx2 avx512f avx512dq avx512_vnni

processor\t: 1
model name\t: Another name
flags\t\t: fpu sse2
"""

RYZEN = """processor\t: 0
model name\t: AMD Ryzen 7 3700X 8-Core Processor
flags\t\t: fpu sse sse2 avx avx2 sha_ni
"""

SANDY_BRIDGE = "model name : Intel(R) Core(TM) i5-2500K\nflags : sse sse2 avx\n"

OLD = "model name : Intel(R) Core(TM)2 Duo\nflags : sse sse2 ssse3\n"

GRAVITON = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""

RASPBERRY = "processor : 0\nFeatures : half thumb vfp neon vfpv4\n\nHardware : BCM2835\n"


@pytest.mark.parametrize(
    ("text", "name", "simd"),
    [
        (XEON, "Intel(R) Xeon(R) Processor @ 2.30GHz", Simd("AVX-512", 16)),
        (RYZEN, "AMD Ryzen 7 3700X 8-Core Processor", Simd("AVX2", 8)),
        (SANDY_BRIDGE, "Intel(R) Core(TM) i5-2500K", Simd("AVX", 8)),
        (OLD, "Intel(R) Core(TM)2 Duo", Simd("SSE2", 4)),
        (GRAVITON, "", Simd("NEON", 4)),
        (RASPBERRY, "BCM2835", Simd("NEON", 4)),
        ("", "", Simd("unknown", 1)),
        ("not a cpuinfo file at all", "", Simd("unknown", 1)),
    ],
    ids=["xeon", "ryzen", "sandy bridge", "core 2", "graviton", "raspberry pi", "empty", "nonsense"],
)
def test_cpuinfo_gives_name_and_widest_vector_unit(text: str, name: str, simd: Simd) -> None:
    assert parse_cpuinfo(text) == (name, simd)


def test_a_flag_that_only_begins_like_avx512_is_not_avx512() -> None:
    assert simd_from_features({"avx512er", "avx_vnni", "sse2"}) == Simd("SSE2", 4)


def test_sysctl_of_an_intel_mac_and_of_an_apple_chip() -> None:
    intel = {"machdep.cpu.brand_string": "Intel(R) Core(TM) i7", "hw.optional.avx512f": "0", "hw.optional.avx2_0": "1"}
    assert parse_sysctl(intel, architecture="x86_64") == ("Intel(R) Core(TM) i7", Simd("AVX2", 8))
    apple = {"machdep.cpu.brand_string": "Apple M2"}
    assert parse_sysctl(apple, architecture="arm64") == ("Apple M2", Simd("NEON", 4))


def test_this_machine_is_described_without_gaps() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.platform
    assert machine.simd_floats in (1, 4, 8, 16)
    assert machine.threads == usable_cores()
