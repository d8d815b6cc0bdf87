"""How to run a model in a few lines of Python, C++ and JavaScript, and how to look at it again with this tool."""

import json
import re
import shlex
from collections.abc import Sequence
from keyword import iskeyword
from pathlib import PurePath
from typing import Final

from onnxadmm.report.layers import TensorLine

#: What a C++ string may hold as it is: printable ASCII without quote, backslash, and the question marks of trigraphs.
_PLAIN: Final = re.compile(r"[ !#->@-\[\]-~]")


def python_lines(path: str, names: Sequence[str]) -> tuple[str, ...]:
    """Three lines of Python that run a model with onnxruntime; inputs are called after the model's.

    Args:
        path: of the model.
        names: of the inputs that must be fed.
    """
    feeds = ", ".join(f"{name!r}: {variable(name)}" for name in names)
    return (
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({path!r})",
        f"outputs = session.run(None, {{{feeds}}})",
    )


def cpp_lines(path: str, inputs: Sequence[TensorLine], outputs: Sequence[TensorLine]) -> tuple[str, ...]:
    """Lines of C++ that run a model with the API of onnxruntime; ``values`` holds an ``Ort::Value`` for each input."""
    return (
        f"Ort::Env env; Ort::Session session(env, ORT_TSTR({_cpp(path)}), Ort::SessionOptions());",
        f"const char* inputs[] = {{{', '.join(_cpp(each.name) for each in inputs)}}}, "
        f"*outputs[] = {{{', '.join(_cpp(each.name) for each in outputs)}}};",
        f"auto results = session.Run(Ort::RunOptions(), inputs, values, {len(inputs)}, outputs, {len(outputs)});",
    )


def javascript_lines(path: str, inputs: Sequence[TensorLine]) -> tuple[str, ...]:
    """Lines of JavaScript that run a model in the browser with onnxruntime-web."""
    feeds = ", ".join(f"{json.dumps(each.name)}: {_tensor(each)}" for each in inputs)
    return (
        'import * as ort from "onnxruntime-web";',
        f"const session = await ort.InferenceSession.create({json.dumps(path)});",
        f"const outputs = await session.run({{{feeds}}});",
    )


def variable(name: str) -> str:
    """A variable that may be called after an input."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return word if word.isidentifier() and not iskeyword(word) else f"input_{word}"


def further_commands(model: str, out: str, custom_ops: str | None, *, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Commands that prove and time a result again, and show its report.

    Args:
        model: path of the original.
        out: the folder of the result.
        custom_ops: libraries of custom operators, with a comma and a space between them; None without any.
        others: names of the files in that folder that hold the result in other forms.
    """
    libraries = [word for path in filter(None, (custom_ops or "").split(", ")) for word in ("--custom-ops", path)]
    small, plan, *forms = (str(PurePath(out) / name) for name in ("model.onnx", "plan.json", *others))
    return (
        shlex.join(["onnxadmm", "verify", model, small, plan, *libraries]),
        shlex.join(["onnxadmm", "bench", model, small, *forms, *libraries]),
        shlex.join(["onnxadmm", "report", out, "--open"]),
    )


def _tensor(line: TensorLine) -> str:
    dims = ", ".join(str(length) if isinstance(length, int) else "1" for length in line.shape)
    return f'new ort.Tensor("{_javascript_type(line.dtype)}", {variable(line.name)}, [{dims}])'


def _javascript_type(dtype: str) -> str:
    return dtype if re.fullmatch(r"(float(16|32|64)|u?int(8|16|32|64)|bool|string)", dtype) else "float32"


def _cpp(text: str) -> str:
    """A string literal: what is not plain stands as the octal escapes of its bytes in UTF-8, which end after three."""
    encoded = text.encode("utf-8", errors="surrogateescape" if _is_a_path(text) else "backslashreplace")
    return '"' + "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"\\{byte:03o}" for byte in encoded) + '"'


def _is_a_path(text: str) -> bool:
    """Whether lone surrogates in a text are the bytes of a path that is no text."""
    return all(not 0xD800 <= ord(mark) <= 0xDFFF or 0xDC80 <= ord(mark) <= 0xDCFF for mark in text)
