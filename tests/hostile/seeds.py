"""The models that are mutated: a network per operator, and the smaller exported ones."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnx

from tests.samples_text import load_sample, microsoft_names, sample_names

_ZOO = Path(__file__).resolve().parents[1] / "zoo"
#: Larger files cost more time and hold no other operators.
_LARGEST_BYTES = 30_000
#: One exported network for so many samples of one operator: the samples have a node of nearly every kind.
_SAMPLES_PER_EXPORT = 3


@cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """Name and serialised model of each, in an order that never changes."""
    return tuple((name, model.SerializeToString(deterministic=True)) for name, model in _models())


def _models() -> Iterator[tuple[str, onnx.ModelProto]]:
    for name in sample_names():
        yield name, load_sample(name)
    for name in microsoft_names():
        yield f"microsoft/{name}", load_sample(name, domain="com.microsoft")
    exported = [path for path in sorted(_ZOO.glob("*.onnx")) if path.stat().st_size <= _LARGEST_BYTES]
    for path in exported[::_SAMPLES_PER_EXPORT]:
        yield path.stem, onnx.load(path)
