"""What opens and runs models in a process of its own: the file is run by its path, with pickled orders on stdin.

It imports nothing but numpy and onnxruntime, and nothing of this package: starting takes a fraction of a second. An
order is a tuple of a verb and its arguments, the answer ``("done", result)`` or ``("failed", words)``::

    ("open", key, model, options, libraries)   model: bytes or a path   -> names, types and shapes of inputs and outputs
    ("run", key, names, feed)                                           -> a list of results
    ("close", key)                                                      -> None
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

#: onnxruntime's log level at which nothing is printed that is also raised.
LOG_FATAL = 4


def build_options(runtime: Any, options: Mapping[str, Any]) -> Any:
    """Return the fields of ``onnxadmm.runtime.session.SessionOptions`` as onnxruntime's own object.

    Args:
        runtime: the module onnxruntime.
        options: fields by name; ``spinning`` as the name of the member.
    """
    result = runtime.SessionOptions()
    result.log_severity_level = LOG_FATAL
    result.intra_op_num_threads = options["threads"]
    result.inter_op_num_threads = 1
    result.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    result.enable_mem_pattern = options["memory_pattern"]
    result.enable_cpu_mem_arena = options["memory_arena"]
    if not options["optimised"]:
        result.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if options["spinning"] == "WHILE_RUNNING":
        result.add_session_config_entry("session.force_spinning_stop", "1")
    elif options["spinning"] == "NEVER":
        result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not options["prepacking"]:
        result.add_session_config_entry("session.disable_prepacking", "1")
    if options["in_order"]:
        result.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    if options["bfloat16"]:
        result.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    if options["profile"]:
        result.enable_profiling = True
        result.profile_file_prefix = options["profile"]
    return result


def main() -> None:
    """Take orders until stdin ends."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What onnxruntime prints must not stand between the answers.
    os.dup2(2, 1)
    _limit_memory()
    serve(orders, answers)


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Answer pickled orders, one after the other."""
    import onnxruntime as runtime

    runtime.set_default_logger_severity(LOG_FATAL)
    sessions: dict[int, Any] = {}
    while True:
        try:
            order = pickle.load(orders)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("done", _obey(runtime, sessions, order))
        except Exception as error:  # whatever onnxruntime raises is told, and the next order waits
            answer = ("failed", str(error) or type(error).__name__)
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


def _obey(runtime: Any, sessions: dict[int, Any], order: Sequence[Any]) -> Any:
    verb, key, *rest = order
    if verb == "open":
        model, options, libraries = rest
        given = build_options(runtime, options)
        for library in libraries:
            given.register_custom_ops_library(library)
        sessions[key] = runtime.InferenceSession(model, given, providers=["CPUExecutionProvider"])
        return [
            [(value.name, value.type, value.shape) for value in values]
            for values in (sessions[key].get_inputs(), sessions[key].get_outputs())
        ]
    if verb == "run":
        names, feed = rest
        return sessions[key].run(names, feed)
    sessions.pop(key, None)
    return None


def _limit_memory() -> None:
    """Let a model that asks for more than the machine has fail here, before the system ends other processes."""
    with suppress(ImportError, OSError, ValueError, AttributeError):  # no such limit on this system
        import resource

        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (whole if hard < 0 else min(whole, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
