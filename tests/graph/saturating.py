"""ONNX's evaluator with the byte products of a processor without VNNI, on any processor.

``pmaddubsw`` multiplies unsigned by signed bytes and adds each pair of products in 16 bits, cut off at the ends;
onnxruntime takes zero points off afterwards, by sums of rows and columns. Unsigned by unsigned bytes are widened to
16 bits first and added in 32, and so are signed by signed ones.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


def byte_product(left: Array, right: Array) -> NDArray[np.int64]:
    """``[m, k]`` times ``[k, n]``, both of bytes, as such a processor adds them up."""
    odd = ((0, 0), (0, left.shape[1] % 2))
    a = np.pad(left, odd).astype(np.int64)  # [m, k], k even
    b = np.pad(right, odd[::-1]).astype(np.int64)  # [k, n]
    pairs = a[:, 0::2, None] * b[None, 0::2] + a[:, 1::2, None] * b[None, 1::2]  # [m, k/2, n]
    if left.dtype == np.uint8 and right.dtype == np.int8:
        pairs = pairs.clip(-(2**15), 2**15 - 1)
    return np.asarray(pairs.sum(axis=1))


def quantised_product(left: Array, right: Array, left_zero: Array | None, right_zero: Array | None) -> Array:
    """``(left - left_zero) @ (right - right_zero)``, ``[..., k]`` times ``[k, n]``, in int64."""
    rows = left.reshape(-1, left.shape[-1])  # [..., k] -> [m, k]
    a_zero = np.int64(0 if left_zero is None else left_zero.reshape(-1)[0])
    b_zero = np.zeros(1, np.int64) if right_zero is None else right_zero.reshape(-1).astype(np.int64)
    total = byte_product(rows, right)
    total -= a_zero * right.sum(axis=0, dtype=np.int64) + rows.sum(axis=1, dtype=np.int64)[:, None] * b_zero
    total += rows.shape[1] * a_zero * b_zero
    return total.reshape(*left.shape[:-1], right.shape[1])


def quantised_convolution(
    x: Array, w: Array, x_zero: Array | None, w_zero: Array | None, *, groups: int | None, pads: list[int] | None
) -> Array:
    """``[n, cin, h, w]`` with ``[cout, cin / groups, kh, kw]``, in int64; strides and dilations are 1."""
    top, left, bottom, right = pads or (0, 0, 0, 0)
    surround = ((0, 0), (0, 0), (top, bottom), (left, right))
    x = np.pad(x, surround, constant_values=0 if x_zero is None else x_zero.item())
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))  # [n, cin, oh, ow, kh, kw]
    found = []
    for filters, channels in zip(np.split(w, groups or 1), np.split(windows, groups or 1, axis=1), strict=True):
        rows = channels.transpose(0, 2, 3, 1, 4, 5)  # [n, oh, ow, cin / groups, kh, kw]
        rows = rows.reshape(*rows.shape[:3], -1)
        # onnxruntime demands one zero point of all filters.
        zero = None if w_zero is None else w_zero.reshape(-1)[:1]
        found.append(quantised_product(rows, filters.reshape(len(filters), -1).T, x_zero, zero))
    return np.concatenate(found, axis=3).transpose(0, 3, 1, 2)


def requantise(total: Array, multiplier: Array, zero: Array) -> Array:
    limits = np.iinfo(zero.dtype)
    return np.asarray((np.rint(total * multiplier) + zero).clip(limits.min, limits.max).astype(zero.dtype))


class MatMulInteger(OpRun):  # type: ignore[misc]  # onnx has no types for it
    def _run(self, a: Array, b: Array, a_zero: Any = None, b_zero: Any = None) -> tuple[Array]:
        return (quantised_product(a, b, a_zero, b_zero).astype(np.int32),)


class ConvInteger(OpRun):  # type: ignore[misc]
    def _run(self, x: Array, w: Array, x_zero: Any = None, w_zero: Any = None, **attributes: Any) -> tuple[Array]:
        total = quantised_convolution(x, w, x_zero, w_zero, groups=attributes["group"], pads=attributes["pads"])
        return (total.astype(np.int32),)


class QLinearMatMul(OpRun):  # type: ignore[misc]
    def _run(self, *operands: Array) -> tuple[Array]:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = operands
        return (requantise(quantised_product(a, b, a_zero, b_zero), a_scale * b_scale / y_scale, y_zero),)


class QLinearConv(OpRun):  # type: ignore[misc]
    def _run(self, *operands: Array, **attributes: Any) -> tuple[Array]:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = operands
        total = quantised_convolution(x, w, x_zero, w_zero, groups=attributes["group"], pads=attributes["pads"])
        total += sum(added.reshape(-1, 1, 1) for added in bias if added is not None)
        return (requantise(total, (x_scale * w_scale / y_scale).reshape(-1, 1, 1), y_zero),)


class MatMulIntegerToFloat(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(
        self, a: Array, b: Array, a_scale: Array, b_scale: Array, a_zero: Any = None, b_zero: Any = None, c: Any = None
    ) -> tuple[Array]:
        total = quantised_product(a, b, a_zero, b_zero) * (a_scale * b_scale)
        return ((total + (0 if c is None else c)).astype(np.float32),)


class DynamicQuantizeMatMul(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(self, a: Array, b: Array, b_scale: Array, b_zero: Any = None, c: Any = None) -> tuple[Array]:
        low, high = min(float(a.min()), 0.0), max(float(a.max()), 0.0)
        scale = np.float32((high - low) / 255)
        zero = np.array(np.rint(-low / scale), np.uint8)
        rounded = (np.rint(a / scale) + zero).clip(0, 255).astype(np.uint8)
        total = quantised_product(rounded, b, zero, b_zero) * (scale * b_scale)
        return ((total + (0 if c is None else c)).astype(np.float32),)


class QGemm(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(self, *operands: Any, **attributes: Any) -> tuple[Array]:
        a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = (*operands, None, None, None)[:9]
        total = quantised_product(a, b.T if attributes.get("transB") else b, a_zero, b_zero) + (0 if c is None else c)
        if y_scale is not None:
            return (requantise(total, a_scale * b_scale / y_scale, y_zero),)
        return ((total * (a_scale * b_scale)).astype(np.float32),)


PRODUCTS = (
    ConvInteger, DynamicQuantizeMatMul, MatMulInteger, MatMulIntegerToFloat, QGemm, QLinearConv, QLinearMatMul,
)  # fmt: skip


def processor_without_vnni(model: onnx.ModelProto) -> ReferenceEvaluator:
    """An evaluator that stands for onnxruntime on such a processor; ``model`` is stamped with a newer opset."""
    # Quantising per tensor or channel means the same in all of them, and the evaluator knows only newer ones.
    for opset in model.opset_import:
        opset.version = max(opset.version, 21) if opset.domain in ("", "ai.onnx") else opset.version
    return ReferenceEvaluator(model, new_ops=list(PRODUCTS))
