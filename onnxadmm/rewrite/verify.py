"""Proof on numbers that the shrunk model computes what the masked original computes.

Both models run node by node, without graph optimisations and with exact integer products (see ``open_session``), one
after the other, so that a large model is in memory once; what remains between equal networks is the order of summation
inside a product of floats, about 120 dB in float32.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.errors import ModelFileError, OptionError, VerificationError
from onnxadmm.graph.model import Model, complaint
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.still import still
from onnxadmm.rewrite.comparing import Gap, compare
from onnxadmm.rewrite.locate import Kept, locate
from onnxadmm.rewrite.noise import GRACE_DB, MULTIPLE, WithinNoise, noise_floors, without_saturation
from onnxadmm.rewrite.structure import Retrained

Array = NDArray[Any]

# Below this share of an output, what varies with the input drowns in float32 rounding at the default threshold.
_BLIND_SHARE: Final = 1e-3
DEFAULT_THRESHOLD_DB: Final = 80.0

# Rounding after every node bounds what two equal networks can agree to: 11 bits of significand give about 66 dB for
# one rounding, 8 bits about 48; a few layers and roundings that fall the other way cost the rest.
_ATTAINABLE_DB: Final = {onnx_ir.DataType.FLOAT16: 40.0, onnx_ir.DataType.BFLOAT16: 25.0}


@dataclass(frozen=True)
class Verification:
    """What the comparison of two models found.

    Attributes:
        passed: the shrunk model is valid ONNX (where the original is), and every output of every input agreed.
        snr_db: worst signal-to-noise ratio over outputs and inputs, 10 log10(sum ref^2 / sum (ref - new)^2), in dB;
            inf where all are identical, -inf where one could not be compared.
        max_abs_error: largest absolute difference of a float output.
        outputs: names of the outputs that were compared.
        inputs_tried: how many input batches were run.
        threshold_db: the ratio that was demanded: the caller's, or less for a model that computes in 16-bit floats
            (40 dB for float16, 25 dB for bfloat16).
        exact_mismatch: largest share of an output's integer, boolean or text elements that differed.
        first_difference: one sentence on the first thing that disagreed; None when ``passed``.
        blind: float outputs that hardly change from one sample to the next, such as those of untrained networks in
            which the signal dies: that they agree says little.
        within_noise: float outputs below ``threshold_db`` that passed nevertheless, since the difference is no larger
            than what rounding alone changes in the masked original; all others reached ``threshold_db``.
        held_still: operators that draw at random while running, such as ``"Dropout (drop1)"``, which the copies that
            were compared do not, see ``onnxadmm.graph.still``.
        retrained: where it did not pass because the shrunk model was retrained: what was proven in place of the
            numbers, its structure.
    """

    passed: bool
    snr_db: float
    max_abs_error: float
    outputs: tuple[str, ...]
    inputs_tried: int
    threshold_db: float
    exact_mismatch: float
    first_difference: str | None
    blind: tuple[str, ...] = ()
    within_noise: tuple[WithinNoise, ...] = ()
    held_still: tuple[str, ...] = ()
    retrained: Retrained | None = None

    def __post_init__(self) -> None:
        if self.passed != (self.first_difference is None):
            raise ValueError("a verification either passes or names a difference")

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else f"failed: {self.first_difference!r}"
        figures = f"{self.snr_db:.1f} dB of {self.threshold_db:g} asked, error at most {self.max_abs_error:.2g}"
        return f"Verification({verdict}, {figures}, {self.inputs_tried} inputs)"


def verify(
    masked: Model,
    shrunk: Model,
    inputs: Sequence[Mapping[str, Array]],
    *,
    threshold_db: float = DEFAULT_THRESHOLD_DB,
    threads: int = 1,
    exact_may_differ: float = 0.0,
    kept: Kept | None = None,
) -> Verification:
    """Run both models on the same inputs and compare every output.

    Floats are compared by signal-to-noise ratio over the whole output; NaN and infinities must stand at the same
    positions. Integers, booleans, text, and the keys of maps are compared exactly. Where the reference is zero
    everywhere, at most 1e-6 in absolute value passes.

    A float output below the ratio passes where it differs by at most ``MULTIPLE`` times what rounding alone changes in
    the masked original, see ``noise_floors``, and is no more than ``GRACE_DB`` below; or, if it is saturated, where
    the same holds without the functions that saturate. So what passes agreed to ``threshold_db - GRACE_DB`` at least,
    at the output itself or before it saturates.

    Args:
        masked: the original with the readers of removed units set to zero.
        shrunk: the same network without those units.
        inputs: batches to run, each an array per graph input.
        threshold_db: smallest ratio that passes.
        threads: threads of one operator.
        exact_may_differ: share of an output's exactly compared elements that may differ, 0 to 1: an ArgMax whose two
            best scores are equal up to rounding may fall either way.
        kept: the surviving positions of a masked tensor, see ``locate``; when it is given, a failure names the first
            tensor that differs and not only the output.

    Raises:
        OptionError: ``inputs`` is empty, or a number is out of its range.
        ModelFileError: the masked original itself does not load or run.
        InputError: the module onnxruntime is missing or broken.
    """
    _check_options(inputs, threads=threads, exact_may_differ=exact_may_differ)
    limit = min(threshold_db, _attainable_db(masked))
    masked, held_still = still(masked)
    shrunk, _ = still(shrunk)
    with open_session(masked, threads=threads, as_written=True) as reference:
        expected = [reference.run(feed) for feed in inputs]
    gaps: list[Gap] = []
    complaints: list[str] = []
    low: dict[str, list[tuple[int, Gap]]] = {}  # outputs of a low ratio and nothing else against them, by input
    tried = 0
    try:
        with open_session(shrunk, threads=threads, as_written=True) as result:
            if result.refusal is not None and reference.refusal is None:
                complaints.append(f"onnxruntime runs the masked original and not the shrunk model: {result.refusal}")
            if result.outputs != reference.outputs:
                complaints.append(f"outputs should be {list(reference.outputs)} and are {list(result.outputs)}")
            for feed, wanted in zip(inputs, expected, strict=True):
                found = result.run(feed, reference.outputs)
                tried += 1
                for name in reference.outputs:
                    gaps.append(compare(wanted[name], found[name]))
                    differs = gaps[-1].complaint(limit=limit, exact_may_differ=exact_may_differ)
                    if gaps[-1].complaint(limit=-math.inf, exact_may_differ=exact_may_differ) is None and differs:
                        low.setdefault(name, []).append((tried - 1, gaps[-1]))
                    complaints += [] if differs is None else [f"output {name}: {differs}"]
    except ModelFileError as error:
        # The masked original has run already, so this is the shrunk model.
        complaints.append(f"the shrunk model does not run: {error.found}")
        gaps.append(Gap(-math.inf, math.inf, 0.0, complaints[-1]))
    noisy: tuple[WithinNoise, ...] = ()
    if complaints and len(complaints) == sum(map(len, low.values())):
        floors = noise_floors(masked, inputs, expected, threads=threads)
        noisy = _within_noise(masked, shrunk, inputs, low, floors, limit=limit, threads=threads)
        complaints = complaints if len(noisy) < len(low) else []
    blind = tuple(name for name in reference.outputs if _is_blind([results[name] for results in expected]))
    if not complaints:
        # An output that is 0 or 1 whatever comes in agrees whatever is wrong before it.
        proofs = [_before_saturation(masked, shrunk, inputs, name, limit=limit, threads=threads) for name in blind]
        complaints = [
            f"output {name} before it saturates: {proof.first_difference}"
            for name, proof in zip(blind, proofs, strict=True)
            if proof is not None and not proof.passed
        ]
    invalid = complaint(shrunk)
    if invalid is not None and complaint(masked) is None:
        complaints.append(f"the shrunk model is not valid ONNX although the original is: {invalid}")
    difference = complaints[0] if complaints else None
    if difference is not None and kept is not None:
        located = locate(masked, shrunk, inputs, kept, threshold_db=limit, threads=threads)
        difference = difference if located is None else f"{difference}; {located}"
    return Verification(
        passed=difference is None,
        snr_db=min(gap.snr_db for gap in gaps),
        max_abs_error=max(gap.max_abs_error for gap in gaps),
        outputs=reference.outputs,
        inputs_tried=tried,
        threshold_db=limit,
        exact_mismatch=max(gap.exact_mismatch for gap in gaps),
        first_difference=difference,
        blind=blind,
        within_noise=noisy if difference is None else (),
        held_still=held_still,
    )


def prove(
    masked: Model,
    shrunk: Model,
    inputs: Sequence[Mapping[str, Array]],
    *,
    kept: Kept,
    threshold_db: float = DEFAULT_THRESHOLD_DB,
) -> Verification:
    """Compare as ``verify`` does, and run the shrunk model as it will be deployed; see there."""
    found = verify(masked, shrunk, inputs, threshold_db=threshold_db, kept=kept)
    return as_deployed(found, masked, shrunk, inputs[0])


def as_deployed(
    proof: Verification, masked: Model, shrunk: Model, feed: Mapping[str, Array], *, threads: int = 1
) -> Verification:
    """Run the shrunk model as it will be run, graph optimisations and all: they see other widths than before.

    Args:
        proof: what ``verify`` found.
        masked, shrunk: that it compared.
        feed: one batch.
        threads: of one operator.

    Returns:
        The proof; a failed one where onnxruntime runs the masked original like that, and not the shrunk model.
    """
    if not proof.passed:
        return proof
    refusal = _refusal_of(shrunk, feed, threads=threads)
    if refusal is None or _refusal_of(masked, feed, threads=threads) is not None:
        return proof
    found = f"with its graph optimisations onnxruntime runs the masked original and not the shrunk model: {refusal}"
    return replace(proof, passed=False, snr_db=-math.inf, first_difference=found, within_noise=())


def _refusal_of(model: Model, feed: Mapping[str, Array], *, threads: int) -> str | None:
    """Why onnxruntime does not run a model; None where it does."""
    try:
        with open_session(model, threads=threads) as session:
            session.run(feed)
    except ModelFileError as error:
        return error.found
    return None


def _within_noise(
    masked: Model,
    shrunk: Model,
    inputs: Sequence[Mapping[str, Array]],
    low: Mapping[str, Sequence[tuple[int, Gap]]],
    floors: Sequence[Mapping[str, float]],
    *,
    limit: float,
    threads: int,
) -> tuple[WithinNoise, ...]:
    """Return those of the outputs with a low ratio that differ by rounding alone."""
    found: dict[str, WithinNoise] = {}
    for name, gaps in low.items():
        if any(gap.max_abs_error > MULTIPLE * floors[number][name] for number, gap in gaps):
            continue
        number, worst = max(gaps, key=lambda each: each[1].max_abs_error / floors[each[0]][name])
        ratio = min(gap.snr_db for _, gap in gaps)
        found[name] = WithinNoise(name, ratio, worst.max_abs_error, floors[number][name])
    for name in [name for name, line in found.items() if line.snr_db < limit - GRACE_DB]:
        line = found.pop(name)
        proof = _before_saturation(masked, shrunk, inputs, name, limit=limit, threads=threads)
        if proof is not None and proof.passed:
            found[name] = replace(line, unsaturated_db=proof.snr_db)
    return tuple(found[name] for name in low if name in found)


def _before_saturation(
    masked: Model, shrunk: Model, inputs: Sequence[Mapping[str, Array]], name: str, *, limit: float, threads: int
) -> Verification | None:
    """Compare an output without the functions that saturate it; None where there are none, or not the same ones."""
    before, replaced = without_saturation(masked, name)
    after, replaced_too = without_saturation(shrunk, name)
    if not replaced or replaced != replaced_too:
        return None
    return verify(before, after, inputs, threshold_db=limit, threads=threads)


def _is_blind(results: Sequence[Any]) -> bool:
    """Tell whether a float output is all but the same for every sample that was tried."""
    arrays = [np.asarray(result) for result in results if isinstance(result, np.ndarray) and result.ndim > 0]
    if not arrays or arrays[0].dtype.kind != "f" or len({array.shape[1:] for array in arrays}) > 1:
        return False
    samples = np.concatenate(arrays).astype(np.float64)
    spread = np.linalg.norm(samples - samples.mean(axis=0))
    return len(samples) > 1 and bool(spread <= _BLIND_SHARE * np.linalg.norm(samples))


def require(verification: Verification, *, inexact: Sequence[str] = ()) -> Verification:
    """Hand a passed verification back.

    Args:
        inexact: operators that mix along an axis that was pruned, as the user asked for: the outputs then differ by
            right, and only a result that does not run, or has other shapes, is refused.

    Raises:
        VerificationError: it did not pass; the sentence names what differs, and the tensor where it was located.
    """
    if verification.passed or (inexact and math.isfinite(verification.snr_db)):
        return verification
    raise VerificationError(
        "the shrunk model",
        expected=f"the outputs of the masked original to {verification.threshold_db:g} dB",
        found=verification.first_difference or "a difference",
        way_out="keep the original, lock the groups around that operator with --ignore, and report the operator",
    )


def _check_options(inputs: Sequence[Mapping[str, Array]], *, threads: int, exact_may_differ: float) -> None:
    if not inputs:
        raise OptionError("verification", expected="at least one input", found="none", way_out="pass some inputs")
    if threads < 1:
        raise OptionError("--threads", expected="at least 1", found=str(threads), way_out="give a positive number")
    if not 0.0 <= exact_may_differ <= 1.0:
        raise OptionError(
            "exact_may_differ", expected="a share from 0 to 1", found=str(exact_may_differ), way_out="give a share"
        )


def _attainable_db(model: Model) -> float:
    """The ratio two equal models reach at the lowest precision this one computes in; inf above 16 bits."""
    graph = model.ir.graph
    kinds = {value.dtype for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]}
    kinds |= {value.dtype for node in graph for value in node.outputs}
    casts = [node.attributes.get_int("to") for node in graph if node.op_type == "Cast"]
    kinds |= {onnx_ir.DataType(kind) for kind in casts if kind is not None}
    return min((limit for kind, limit in _ATTAINABLE_DB.items() if kind in kinds), default=math.inf)
