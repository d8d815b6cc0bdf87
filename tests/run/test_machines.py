"""What a machine has of the data, and what it refuses, in this process."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import load
from onnxadmm.run.machines import Site, as_bytes, part_of, share_of_batch
from onnxadmm.train.data.batches import ArrayDataset

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def stored(count: int, *, contents: NDArray[np.uint64] | None = None) -> ArrayDataset:
    """Numbers that say which sample they are, in an order that is not that of the memory."""
    order = np.random.default_rng(1).permutation(count)
    return ArrayDataset({"x": np.arange(count)}, None, {}, {}, order, contents=contents)


def test_machines_have_all_samples_among_them_and_none_twice() -> None:
    samples = stored(500)
    parts = [part_of(samples, machine, (0, 1, 3)).order for machine in (0, 1, 3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(500))
    places = {number: place for place, number in enumerate(samples.order)}
    assert all(np.all(np.diff([places[number] for number in part]) > 0) for part in parts)


def test_the_only_machine_has_the_samples_as_they_are() -> None:
    samples = stored(10)
    assert part_of(samples, 2, (2,)) is samples


def test_pictures_are_dealt_by_what_is_in_them() -> None:
    digests = np.random.default_rng(0).integers(2**64, size=(400, 2), dtype=np.uint64)
    one = part_of(stored(400, contents=digests), 0, (0, 1))
    other = part_of(stored(400, contents=digests[::-1].copy()), 0, (0, 1))
    assert {tuple(row) for row in digests[one.order]} == {tuple(row) for row in digests[::-1][other.order]}


@pytest.mark.parametrize(("machines", "batch_size", "share"), [(1, 64, 64), (3, 64, 21), (4, 64, 16)])
def test_all_machines_together_take_a_batch(machines: int, batch_size: int, share: int) -> None:
    assert share_of_batch(stored(500), machines, batch_size=batch_size) == share


@pytest.mark.parametrize(("machines", "batch_size"), [(9, 8), (4, 400)])
def test_machines_without_a_share_are_refused(machines: int, batch_size: int) -> None:
    with pytest.raises(OptionError, match=f"a share of every batch, and of the data, for each of {machines} machines"):
        share_of_batch(stored(300), machines, batch_size=batch_size)


def test_a_machine_that_has_other_data_refuses_them(digits: DemoFiles, few_digits: Digits) -> None:
    site = Site(
        model=as_bytes(load(digits.model)),
        input_shapes={},
        data=few_digits,
        made=False,
        digest="0" * 64,
        recipe=oa.Recipe(batch_size=32),
        preprocessing=oa.Preprocessing(),
        inputs={},
        seed=0,
        trains=True,
    )
    with pytest.raises(DataError, match="expected the data with digest 000000000000, as where") as caught:
        site.open()
    with pytest.raises(DataError, match=f"found {caught.value.found}"):
        replace(site, digest="1" * 64).open()
    with pytest.raises(DataError, match=f"found (?!{caught.value.found})"):
        replace(site, seed=1).open()  # another part is held out
