"""Decoders as Llama, GPT and BERT have them: a residual stream between a table of tokens and a layer of logits.

Tokens ``[N, 6]`` become logits ``[N, 40, 6]``. A block is a norm, attention of four heads with rotary positions, an
addition, a norm, a gated linear unit and an addition; norms may stand behind the additions instead.
"""

from typing import Literal, get_args

import numpy as np
import onnx
from onnx import numpy_helper

from tests.samples_text import parse_sample

#: How a norm is written: operators of the file, or one operator.
Norm = Literal[
    "Div",
    "Reciprocal and Cast",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "LayerNormalization",
    "SkipLayerNormalization",
    "LayerNormalization behind the addition",
]
NORMS: tuple[Norm, ...] = get_args(Norm)
WIDTH, HEADS, SIZE, INNER, TOKENS, WORDS = 24, 4, 6, 32, 6, 40
EPSILON = 0.01


def decoder(norm: Norm, *, blocks: int = 2, seed: int = 0) -> onnx.ModelProto:
    """A decoder; the stream's width is that of ``words``."""
    weights = {"words": [WORDS, WIDTH], "logits": [WIDTH, WORDS]}
    weights |= {f"{kind}_end": [WIDTH] for kind in ("scale", "shift")}
    lines = ["s0 = Gather (words, tokens)"]
    stream, total = "s0", ""  # the latter is added to the stream by the next norm, where that adds
    behind = "behind" in norm
    for number in range(blocks):
        weights |= {f"W{part}{number}": [WIDTH, WIDTH] for part in "qkvo"}
        weights |= {f"W{part}{number}": [WIDTH, INNER] for part in "gu"} | {f"Wd{number}": [INNER, WIDTH]}
        weights |= {f"{kind}_{place}{number}": [WIDTH] for kind in ("scale", "shift") for place in "ab"}
        for place, part, body in ((f"a{number}", "attended", _attention), (f"b{number}", "fed", _feed_forward)):
            if not behind:
                lines += _norm(norm, stream, total, place)
                stream = f"t_{place}" if total else stream
            lines += body(number, stream if behind else f"n_{place}")
            total = f"{part}{number}"
            if not norm.startswith("Skip"):
                lines.append(f"s_{place} = Add ({stream}, {total})")
                stream, total = f"s_{place}", ""
            if behind:
                lines += _norm(norm, stream, "", place)
                stream = f"n_{place}"
    lines += [*_norm(norm, stream, total, "end"), "all = MatMul (n_end, logits)"]
    lines.append("y = Transpose <perm: ints = [0, 2, 1]> (all)")
    opset = 23 if norm == "RMSNormalization" else 17
    weights = {name: shape for name, shape in weights.items() if _shifts(norm) or not name.startswith("shift")}
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
    body = "\n".join(lines)
    model = parse_sample(
        f"""<ir_version: {11 if opset > 17 else 8}, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        decoder (int64[N,{TOKENS}] tokens) => (float[N,{WORDS},{TOKENS}] y)
        <{declared}, float[{TOKENS},{SIZE}] cosine, float[{TOKENS},{SIZE}] sine, float[{TOKENS},{TOKENS}] causal,
        int64[4] cut = {{0, 0, {HEADS}, {SIZE}}}, int64[3] flat = {{0, 0, -1}}, float shrunk = {{{SIZE**-0.5}}},
        float two = {{2.0}}, float epsilon = {{{EPSILON}}}, int64[1] first = {{0}}, int64[1] middle = {{{SIZE // 2}}},
        int64[1] last = {{{SIZE}}}, int64[1] along = {{3}}>
        {{
        {body}
        }}"""
    )
    _fill(model, weights, seed)
    return model


def _shifts(norm: Norm) -> bool:
    """Whether it takes the mean out and has a shift."""
    return norm in ("LayerNormalization", "SkipLayerNormalization", "LayerNormalization behind the addition")


def _norm(norm: Norm, stream: str, total: str, name: str) -> list[str]:
    """``n_<name>``, the normed stream; where something is to be added before, ``t_<name>`` is the sum."""
    scale = f"scale_{name}"
    operator = norm.removesuffix(" behind the addition")
    vectors = f"{scale}, shift_{name}" if _shifts(norm) else scale
    if total:
        node = f"com.microsoft.{operator} <epsilon: float = {EPSILON}>"
        return [f"n_{name}, , , t_{name} = {node} ({stream}, {total}, {vectors})"]
    if operator.endswith("Normalization"):
        node = f"{operator.removeprefix('Skip')} <axis: int = -1, epsilon: float = {EPSILON}>"
        return [f"n_{name} = {node} ({stream}, {vectors})"]
    wide = f"c_{name}" if "Cast" in norm else stream
    lines = [f"{wide} = Cast <to: int = 1> ({stream})"] if "Cast" in norm else []
    lines += [
        f"p_{name} = Pow ({wide}, two)",
        f"m_{name} = ReduceMean <axes: ints = [-1]> (p_{name})",
        f"e_{name} = Add (m_{name}, epsilon)",
        f"r_{name} = Sqrt (e_{name})",
    ]
    if norm == "Div":
        return [*lines, f"d_{name} = Div ({wide}, r_{name})", f"n_{name} = Mul (d_{name}, {scale})"]
    return [
        *lines,
        f"i_{name} = Reciprocal (r_{name})",
        f"d_{name} = Mul ({wide}, i_{name})",
        f"b_{name} = Cast <to: int = 1> (d_{name})",
        f"n_{name} = Mul ({scale}, b_{name})",
    ]


def _attention(number: int, given: str) -> list[str]:
    lines: list[str] = []
    for part in "qkv":
        own = f"{part}{number}"
        lines += [f"{own}0 = MatMul ({given}, W{own})", f"{own}1 = Reshape ({own}0, cut)"]
        lines.append(f"{own}2 = Transpose <perm: ints = [0, 2, 1, 3]> ({own}1)")
        if part != "v":
            lines += [
                f"{own}3 = Slice ({own}2, first, middle, along)",
                f"{own}4 = Slice ({own}2, middle, last, along)",
                f"{own}5 = Neg ({own}4)",
                f"{own}6 = Concat <axis: int = -1> ({own}5, {own}3)",
                f"{own}7 = Mul ({own}2, cosine)",
                f"{own}8 = Mul ({own}6, sine)",
                f"{own}9 = Add ({own}7, {own}8)",
            ]
    return [
        *lines,
        f"turned{number} = Transpose <perm: ints = [0, 1, 3, 2]> (k{number}9)",
        f"product{number} = MatMul (q{number}9, turned{number})",
        f"scaled{number} = Mul (product{number}, shrunk)",
        f"hidden{number} = Add (scaled{number}, causal)",
        f"share{number} = Softmax <axis: int = -1> (hidden{number})",
        f"mixed{number} = MatMul (share{number}, v{number}2)",
        f"back{number} = Transpose <perm: ints = [0, 2, 1, 3]> (mixed{number})",
        f"flat{number} = Reshape (back{number}, flat)",
        f"attended{number} = MatMul (flat{number}, Wo{number})",
    ]


def _feed_forward(number: int, given: str) -> list[str]:
    return [
        f"g{number} = MatMul ({given}, Wg{number})",
        f"o{number} = Sigmoid (g{number})",
        f"h{number} = Mul (g{number}, o{number})",
        f"u{number} = MatMul ({given}, Wu{number})",
        f"w{number} = Mul (h{number}, u{number})",
        f"fed{number} = MatMul (w{number}, Wd{number})",
    ]


def _fill(model: onnx.ModelProto, weights: dict[str, list[int]], seed: int) -> None:
    """Numbers as in a network: activations of order one, angles of positions, no look ahead."""
    random = np.random.default_rng(seed)
    angles = np.arange(TOKENS)[:, None] / 50.0 ** (np.tile(np.arange(SIZE // 2), 2) * 2 / SIZE)
    arrays = {"cosine": np.cos(angles), "sine": np.sin(angles), "causal": np.triu(np.full((TOKENS,) * 2, -1e4), 1)}
    for name, shape in weights.items():
        arrays[name] = random.uniform(0.5, 1.5, shape) if len(shape) < 2 else random.normal(0, shape[0] ** -0.5, shape)
    arrays["words"] *= WORDS**0.5
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"  # onnxruntime's fusion of slices gives nodes without a name one name twice
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(np.float32), tensor.name))
