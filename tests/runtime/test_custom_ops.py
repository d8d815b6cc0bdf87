"""Custom-operator libraries: which are in use where, and one clear sentence about each that cannot be."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import CustomOperatorError
from onnxadmm.runtime import custom_ops
from onnxadmm.runtime.custom_ops import custom_operators, libraries_in_use, paths_in_use
from onnxadmm.runtime.session import SessionError, SessionOptions, open_inference
from onnxadmm.train.data.prefetch import prefetch
from tests.shared import SCALE2, compiled

ENTRY = """
#include "ort_c_api.h"
extern "C" ORT_EXPORT OrtStatusPtr ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  %s
}
"""
NEWER_API = ENTRY % (
    'OrtCustomOpDomain* made = nullptr; return base->GetApi(99)->CreateCustomOpDomain("com.example", &made);'
)
CRASH = ENTRY % "*(volatile int*)0 = 1; return nullptr;"
#: Asks for functions that are there, and says that its operator has answers which no version has yet.
NEWER_OPERATOR = SCALE2.read_text().replace("op.version = kVersion;", "op.version = 99;")

SOURCES = {
    "no entry point": ("int answer() { return 42; }", "a library without the entry point RegisterCustomOps"),
    "newer interface": (NEWER_API, "one that was built for API version 99 of onnxruntime, a newer one"),
    "newer operator": (NEWER_OPERATOR, ""),
    "crash": (CRASH, "a crash (SIGSEGV) while registering"),
}


def scale() -> onnx.ModelProto:
    """Scale2 of a vector of two."""
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])] for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Scale2", ["x"], ["y"], domain="com.example")], "g", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def runs() -> bool:
    """Whether a session opened here knows Scale2."""
    try:
        opened = open_inference(scale(), SessionOptions())
    except SessionError:
        return False
    x = np.array([1.5, -2], np.float32)
    np.testing.assert_array_equal(opened.run(None, {"x": x})[0], 2 * x)
    return True


@pytest.mark.slow
def test_sessions_know_the_operators_inside_the_block_and_not_outside(scale2: Path) -> None:
    assert not runs()
    with custom_operators([scale2]) as libraries:
        assert runs()
        assert libraries == libraries_in_use()
        assert paths_in_use() == [str(scale2.resolve())]
    assert not runs()
    assert libraries_in_use() == ()


def test_library_is_out_of_use_after_an_error_too(scale2: Path) -> None:
    with pytest.raises(ZeroDivisionError), custom_operators([scale2]):
        raise ZeroDivisionError
    assert libraries_in_use() == ()


def test_inner_block_adds_to_the_outer_one_and_the_same_library_counts_once(scale2: Path) -> None:
    with custom_operators([scale2]), custom_operators([scale2, scale2]) as libraries, custom_operators([]):
        assert len(libraries) == 1
        assert libraries_in_use() == libraries
        assert runs()


def test_a_single_path_is_taken_for_a_list_of_one(scale2: Path) -> None:
    with custom_operators(scale2) as libraries:  # type: ignore[arg-type]  # a mistake that is easily made
        assert [library.path for library in libraries] == [scale2.resolve()]


def test_relative_path_is_that_of_the_working_folder(scale2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scale2.parent)
    with custom_operators([scale2.name]):
        monkeypatch.chdir("/")
        assert runs()


def test_another_thread_does_not_use_what_this_one_does_unless_it_makes_its_batches(scale2: Path) -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        yield len(libraries_in_use())

    with custom_operators([scale2]):
        thread = threading.Thread(target=lambda: seen.append(len(libraries_in_use())))
        thread.start()
        thread.join()
        assert list(prefetch(items())) == [1]
    assert seen == [0]


def test_a_library_is_tried_once_in_a_process(scale2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with custom_operators([scale2]):
        pass
    monkeypatch.setattr(custom_ops, "PROGRAM", ("-c", "raise SystemExit(1)"))
    with custom_operators([scale2]):
        assert runs()


@pytest.mark.parametrize("case", SOURCES)
def test_a_library_that_does_not_fit_is_one_sentence_and_ends_no_process(case: str, tmp_path: Path) -> None:
    source, found = SOURCES[case]
    library = compiled(source, tmp_path / "library.so")
    with pytest.raises(CustomOperatorError) as caught, custom_operators([library]):
        pass
    assert found in caught.value.found
    assert str(library) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    if case.startswith("newer"):
        assert "headers no newer than the installed onnxruntime" in caught.value.way_out


@pytest.mark.slow
def test_what_is_no_library_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    for path, found in (
        (tmp_path / "nowhere.so", "no such file"),
        (tmp_path, "a directory"),
        ("a\0b.so", "null"),
        (tmp_path / "text.so", "Failed to load library"),
    ):
        with pytest.raises(CustomOperatorError) as caught, custom_operators([path]):
            pass
        assert found in caught.value.found
        assert "\n" not in str(caught.value)


def test_a_library_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.so").write_bytes(b"slow")
    monkeypatch.setattr(custom_ops, "_PATIENCE", 0.01)
    with pytest.raises(CustomOperatorError, match="no answer within"), custom_operators([tmp_path / "slow.so"]):
        pass


def test_a_trial_that_fails_for_another_reason_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "any.so").write_bytes(b"any")
    monkeypatch.setattr(custom_ops, "PROGRAM", ("-c", "raise SystemExit('no onnxruntime here')"))
    with pytest.raises(CustomOperatorError, match="no onnxruntime here"), custom_operators([tmp_path / "any.so"]):
        pass
