"""The width of the residual stream between norms shrinks exactly, in every form of the norm."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units
from tests.graphs import feeds
from tests.graphs.decoder import NORMS, WIDTH, Norm, decoder
from tests.rewrite import laws


def stream_of(units: Units) -> NDArray[np.int64]:
    (group,) = [group for group in units.groups if "words" in group.tensors]
    assert group.count == WIDTH
    return np.arange(group.start, group.start + group.count)


@pytest.mark.parametrize("norm", NORMS)
def test_the_width_of_a_llama_like_decoder_is_pruned_exactly(norm: Norm) -> None:
    """A ratio of 0.3 takes 7 of 24 positions of the stream out of every weight that meets it."""
    original = decoder(norm)
    plan = oa.rank(original, ratio=0.3)
    proof = oa.verify(original, oa.shrink(original, plan), plan)
    assert proof.passed
    assert proof.snr_db >= 100
    model, units = laws.units_of(original)
    case = laws.prune(original, model, units, plan.keep(model, units))
    assert case.keep[stream_of(units)].sum() == WIDTH - 7
    laws.law_masked_differs_only_in_zeros(case)
    laws.law_removed_units_cannot_be_seen(case)
    laws.law_signature_is_unchanged(case)
    arrays = laws.constants(to_proto(case.shrunk).graph)
    shapes = {name: arrays[name].shape for name in ("words", "Wq0", "Wo1", "Wg1", "Wd1", "logits")}
    narrow = WIDTH - 7
    assert shapes == {
        "words": (40, narrow), "Wq0": (narrow, 18), "Wo1": (18, narrow), "Wg1": (narrow, 23), "Wd1": (23, narrow),
        "logits": (narrow, 40),
    }  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
def test_random_plans_of_a_llama_like_decoder_are_exact(norm: Norm) -> None:
    laws.hold(decoder(norm, seed=1), laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk)


@pytest.mark.parametrize("norm", NORMS)
def test_a_position_of_the_stream_that_nothing_writes_is_what_is_removed(norm: Norm) -> None:
    """An oracle without gates and readers: zeros in the table, in layers that add to the stream, and behind norms."""
    original = decoder(norm, seed=2)
    model, units = laws.units_of(original)
    keep = np.ones(units.count, np.bool_)
    gone = np.array([1, 2, 11, 23])
    keep[stream_of(units)[gone]] = False
    emptied = onnx.ModelProto.FromString(original.SerializeToString())
    arrays = laws.constants(emptied.graph)
    for name, array in arrays.items():
        if name in ("words", "Wo0", "Wd0", "Wo1", "Wd1") or name.startswith(("scale_", "shift_")):
            arrays[name] = array.copy()
            arrays[name][..., gone] = 0
    laws.replace_constants(emptied.graph, arrays)
    results = []
    for proto in (emptied, to_proto(laws.prune(original, model, units, keep).shrunk)):
        with open_session(load(proto), as_written=True) as session:
            results.append(session.run(feeds(original))["y"])
    assert laws.snr_db(*results) > 100


@pytest.mark.parametrize("norm", NORMS)
def test_most_parameters_of_a_decoder_go_with_the_width(norm: Norm) -> None:
    original = decoder(norm)
    _, units = laws.units_of(original)
    cost = Cost(units, "params")
    everything = np.ones(units.count, np.bool_)
    shares = []
    for removed in (False, True):
        keep = everything.copy()
        for group in units.groups:
            going = int(0.3 * group.count) if removed or group.name != "words" else 0
            keep[group.start : group.start + going] = False
        shares.append(1 - cost.total(keep) / cost.total(everything))
    assert shares[0] < 0.22  # what goes where the width stays
    assert shares[1] > 0.43
