"""What tries a custom-operator library out: ``python -m onnxadmm.runtime.try_library PATH``.

Prints a line of JSON at the end: an object, with ``error`` where onnxruntime refuses the library. It runs in a process
of its own, since a library that was built for another onnxruntime may crash.
"""

import json
import sys

from onnx import TensorProto, helper

from onnxadmm.child_process import end_with_parent
from onnxadmm.errors import InputError
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.runtime.session import SessionError, SessionOptions, open_inference


def main(path: str) -> int:
    """Register a library and open a session with it, which is when onnxruntime looks at what was registered."""
    end_with_parent()
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    answer = {"library": path}
    try:
        with custom_operators([path], tried=True):
            open_inference(model, SessionOptions())
    except SessionError as error:
        answer["error"] = str(error)
    except InputError as error:
        answer["error"] = error.found
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
