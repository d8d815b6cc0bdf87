"""Hostile data, plans, reports and paths: a sentence each, before memory or patience runs out."""

import gzip
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxadmm.errors import DataError, InputError, PlanError
from onnxadmm.graph.model import load
from onnxadmm.plan.plan import Plan
from onnxadmm.report.reading import read_report
from onnxadmm.train.data import sources
from onnxadmm.train.data.sources import read_source

_NPY = b"\x93NUMPY\x01\x00"


def npy(shape: str, content: bytes) -> bytes:
    """An .npy file whose header says what it likes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return _NPY + len(header).to_bytes(2, "little") + header + content


def zipped(content: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An .npz file with one array."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", content)
    return stream.getvalue()


def patched(content: bytes, *, flag: int = 0, method: int | None = None) -> bytes:
    """An archive whose entries say that they are encrypted, or packed in an unknown way."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(magic)
        changed[place + offset] |= flag
        if method is not None:
            changed[place + offset + 2 : place + offset + 4] = method.to_bytes(2, "little")
    return bytes(changed)


GOOD = npy("(4,)", b"abcd")
ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a zip bomb": lambda: zipped(npy("(3000000,)", bytes(3_000_000))),
    "a header that promises a petabyte": lambda: zipped(npy("(1125899906842624,)", b"abcd")),
    "a header that promises more than there is": lambda: zipped(npy("(400,)", b"abcd")),
    "a negative shape": lambda: zipped(npy("(-4,)", b"abcd")),
    "a shape that is no shape": lambda: zipped(npy("'four'", b"abcd")),
    "a header that is a program": lambda: zipped(npy("__import__('os').getpid()", b"abcd")),
    "an encrypted archive": lambda: patched(zipped(GOOD), flag=1),
    "an unknown compression": lambda: patched(zipped(GOOD), method=99),
    "an array in place of an archive": lambda: GOOD,
    "damaged deflated data": lambda: zipped(GOOD)[:40] + b"\xff" * 8 + zipped(GOOD)[48:],
    "an empty archive": lambda: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_in_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 2**20)
    path = tmp_path / "data.npz"
    path.write_bytes(ARCHIVES[name]())
    with pytest.raises(DataError) as caught:
        read_source(path)
    assert str(path) in str(caught.value)


def test_a_good_archive_made_the_same_way_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(zipped(GOOD))
    np.testing.assert_array_equal(read_source(path).inputs["x"], np.frombuffer(b"abcd", np.uint8))


def test_a_gzip_bomb_is_refused_when_it_has_unfolded_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 2**20)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(2**23)))
    with pytest.raises(DataError, match=r"more than .* GiB when unpacked"):
        read_source(path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images" / "one"
    folder.mkdir(parents=True)
    Image.new("L", (300, 300)).save(folder / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"big\.png \(it cannot be decoded"):
        read_source(tmp_path / "images")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe or a device"):
            load(path)
        with pytest.raises(PlanError, match="a pipe or a device"):
            Plan.read(path)
        with pytest.raises(InputError, match="a pipe or a device"):
            read_report(path)
        with pytest.raises(DataError):
            read_source(path)
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(DataError):
        read_source(tmp_path / "data.npz")
    (tmp_path / "images" / "one").mkdir(parents=True)
    os.mkfifo(tmp_path / "images" / "one" / "pipe.png")
    with pytest.raises(DataError):
        read_source(tmp_path / "images")


PLAN = {
    "schema": "onnxadmm.plan/1",
    "sha256": "0",
    "note": "",
    "inexact": False,
    "ignored": [],
    "simplified": False,
    "groups": [{"name": "g", "units": 4, "removed": [1]}],
    "zeros": {},
}


def _group(**changes: object) -> str:
    return json.dumps(PLAN | {"groups": [{"name": "g", "units": 4, "removed": [1]} | changes]})


def _zeros(shape: object, bits: str) -> str:
    return json.dumps(PLAN | {"zeros": {"w": {"shape": shape, "bits": bits}}})


PLANS: dict[str, str] = {
    "deep nesting": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "a number that is infinite": _group().replace("[1]", "[1e999]"),
    "NaN": _group().replace("[1]", "[NaN]"),
    "a number of ten thousand digits": _group().replace("[1]", f"[{'9' * 10_000}]"),
    "a fraction": _group(removed=[1.5]),
    "a text of digits": _group(removed="12"),
    "texts": _group(removed=["1"]),
    "a truth": _group(removed=[True]),
    "nothing": _group(removed=None),
    "units that are text": _group(units="4"),
    "groups that are a number": json.dumps(PLAN | {"groups": 4}),
    "zeros that are a list": json.dumps(PLAN | {"zeros": [1]}),
    "zeros of an absurd shape": _zeros([2**40, 2**40], ""),
    "zeros of a negative shape": _zeros([-1, -8], "eJxjAAAAAQAB"),
    "zeros of a shape that is text": _zeros("88", "eJxjAAAAAQAB"),
    "zeros that are no base64": _zeros([8], "\u00e9"),
    "zeros that are fewer than the shape": _zeros([800], "eJxjAAAAAQAB"),
    "a list": "[]",
    "a null": "null",
}


@pytest.mark.parametrize("name", PLANS)
def test_a_hostile_plan_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(PLANS[name])
    with pytest.raises(PlanError, match=r"plan\.json: expected"):
        Plan.read(path)
    with pytest.raises(InputError, match=r"plan\.json: expected"):
        read_report(path)


def test_a_good_plan_made_the_same_way_is_read() -> None:
    assert Plan.from_json(_group()).groups[0].removed == (1,)
    zeros = Plan.from_json(_zeros([8], "eJxjAAAAAQAB")).zeros["w"]
    assert zeros.shape == (8,)
