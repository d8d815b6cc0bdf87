"""Bad model files: one class, one sentence, and the disk as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxadmm.errors import ModelFileError, OutputError
from onnxadmm.graph.model import from_proto, load, save, to_proto
from onnxadmm.graph.shapes import infer
from tests.graph.models import small_network

Maker = Callable[[Path], Path]


def _whole() -> bytes:
    return small_network().SerializeToString()


def _bytes(content: bytes) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return make


def _proto(change: Callable[[onnx.ModelProto], object]) -> Maker:
    def make(folder: Path) -> Path:
        proto = small_network()
        change(proto)
        return _bytes(proto.SerializeToString())(folder)

    return make


def _opset(version: int) -> Callable[[onnx.ModelProto], object]:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = version

    return change


def _external(change: Callable[[Path], object] | None = None, **entries: str) -> Maker:
    """The small network with external data, entries of the first tensor and then the folder changed."""

    def make(folder: Path) -> Path:
        inside = folder / "inside"
        inside.mkdir()
        path = inside / "model.onnx"
        onnx.save(small_network(), path, save_as_external_data=True, location="w.data", size_threshold=100)
        (folder / "secret.data").write_bytes((inside / "w.data").read_bytes())
        proto = onnx.load(path, load_external_data=False)
        for entry in proto.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)
        path.write_bytes(proto.SerializeToString())
        if change is not None:
            change(inside)
        return path

    return make


def _link_out(folder: Path) -> None:
    (folder / "w.data").unlink()
    (folder / "w.data").symlink_to(folder.parent / "secret.data")


def _link_circle(folder: Path) -> None:
    (folder / "w.data").unlink()
    (folder / "w.data").symlink_to(folder / "w.data")


def _shorten(folder: Path) -> None:
    data = (folder / "w.data").read_bytes()
    (folder / "w.data").write_bytes(data[:-1])


def _data_is_folder(folder: Path) -> None:
    (folder / "w.data").unlink()
    (folder / "w.data").mkdir()


def _wrong_size(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 99


def _wrong_small_size(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].dims[0] = 99


def _operator_of_a_newer_opset(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Mish"
    proto.opset_import[0].version = 17


def _wrong_node_beside_a_custom_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Frobnicate"
    proto.graph.node[0].attribute.add(name="speed", i=1, type=onnx.AttributeProto.INT)


def _negative_sparse_index(proto: onnx.ModelProto) -> None:
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [-1]))


def _sparse_index_too_large(proto: onnx.ModelProto) -> None:
    _negative_sparse_index(proto)
    proto.graph.sparse_initializer[0].indices.int64_data[0] = 4


def _not_utf8(folder: Path) -> Path:
    proto = small_network()
    proto.graph.node[1].doc_string = "a unique doc string"
    return _bytes(proto.SerializeToString().replace(b"a unique doc", b"\xff unique doc"))(folder)


REFUSALS: dict[str, tuple[Maker, str]] = {
    "missing file": (lambda folder: folder / "model.onnx", "no such file"),
    "missing folder": (lambda folder: folder / "nowhere" / "model.onnx", "no such file"),
    "directory": (lambda folder: folder, "a directory"),
    "empty file": (_bytes(b""), "an empty file"),
    "text": (_bytes(b"hello, I am a model"), "of something else"),
    "zeros": (_bytes(bytes(4096)), "of something else"),
    "zip": (_bytes(b"PK\x03\x04" + bytes(100)), "a zip archive"),
    "git lfs pointer": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"),
    "cut off in the middle": (_bytes(_whole()[: len(_whole()) // 2]), "cut off"),
    "cut off at the last byte": (_bytes(_whole()[:-1]), "cut off"),
    "cut off before the opset": (_proto(lambda proto: proto.ClearField("opset_import")), "cut off"),
    "no graph": (_proto(lambda proto: proto.ClearField("graph")), "expected a model with a graph"),
    "no outputs": (_proto(lambda proto: proto.graph.ClearField("output")), "no output"),
    "opset too new": (_proto(_opset(onnx.defs.onnx_opset_version() + 1)), "install a newer onnx"),
    "opset too old": (_proto(_opset(6)), "opset 6"),
    "operator of a newer opset": (_proto(_operator_of_a_newer_opset), "Mish"),
    "wrong node beside a custom operator": (_proto(_wrong_node_beside_a_custom_operator), "speed"),
    "doc string that is no text": (_not_utf8, "UTF-8"),
    "large weight of another size": (_proto(_wrong_size), "conv.weight"),
    "small weight of another size": (_proto(_wrong_small_size), "expected"),
    "negative sparse index": (_proto(_negative_sparse_index), "sparse tensor 's'"),
    "sparse index too large": (_proto(_sparse_index_too_large), "sparse tensor 's'"),
    "external data missing": (_external(lambda folder: (folder / "w.data").unlink()), "no such file"),
    "external data a folder": (_external(_data_is_folder), "a directory"),
    "external data short": (_external(_shorten), "seems cut off"),
    "external offset beyond the end": (_external(offset="999999999"), "seems cut off"),
    "external offset negative": (_external(offset="-1"), "seems cut off"),
    "external offset no number": (_external(offset="many"), "whole numbers"),
    "external length wrong": (_external(length="8"), "for shape"),
    "path traversal": (_external(location="../secret.data"), "the location"),
    "path traversal inside": (_external(location="a/../../secret.data"), "the location"),
    "windows path traversal": (_external(location="..\\secret.data"), "the location"),
    "absolute path": (_external(location="/etc/passwd"), "the location"),
    "windows absolute path": (_external(location="C:\\secret.data"), "the location"),
    "empty location": (_external(location=""), "the location"),
    "link out of the folder": (_external(_link_out), "a symbolic link"),
    "link to itself": (_external(_link_circle), "expected"),
}


def _disk(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def _is_one_sentence(error: Exception) -> bool:
    text = str(error)
    return "\n" not in text and text.endswith(".") and text.count("; ") >= 1 and "expected" in text and "found" in text


@pytest.mark.parametrize("case", REFUSALS)
def test_load_refuses_in_one_sentence_and_leaves_the_disk_as_it_was(case: str, tmp_path: Path) -> None:
    make, words = REFUSALS[case]
    path = make(tmp_path)
    before = _disk(tmp_path)
    with pytest.raises(ModelFileError) as caught:
        load(path)
    assert _is_one_sentence(caught.value), str(caught.value)
    assert words in str(caught.value)
    assert _disk(tmp_path) == before


def test_external_data_next_to_the_model_is_accepted(tmp_path: Path) -> None:
    # Shows that the external data of the table above is refused for what was changed in it.
    assert load(_external()(tmp_path)).extras.external_data


def test_external_data_in_a_subfolder_is_accepted(tmp_path: Path) -> None:
    def move(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "w.data").rename(folder / "sub" / "w.data")
        (folder / "w.data").symlink_to("sub/w.data")

    assert load(_external(move)(tmp_path)).extras.external_data


def test_a_message_in_memory_may_not_have_external_data(tmp_path: Path) -> None:
    path = _external()(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    with pytest.raises(ModelFileError, match="give the path"):
        from_proto(proto)
    assert from_proto(proto, path=path).file_bytes > 10_000


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(ModelFileError, match="an empty message"):
        load(onnx.ModelProto())


def test_what_only_the_checker_objects_to_is_loaded_and_sorted() -> None:
    proto = small_network()
    nodes = list(proto.graph.node)
    proto.graph.ClearField("node")
    proto.graph.node.extend(reversed(nodes))
    proto.graph.name = ""
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    assert [node.name for node in load(proto).ir.graph] == [node.name for node in nodes]


def test_save_refuses_an_existing_file_and_overwrites_it_when_allowed(tmp_path: Path) -> None:
    model = from_proto(small_network())
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError) as caught:
        save(model, path)
    assert _is_one_sentence(caught.value)
    assert _disk(tmp_path) == {str(path): b"mine"}
    assert save(model, path, force=True) == path.stat().st_size


def test_save_refuses_existing_external_data(tmp_path: Path) -> None:
    model = load(_external()(tmp_path))
    data = tmp_path / "new.onnx.data"
    data.write_bytes(b"mine")
    before = _disk(tmp_path)
    with pytest.raises(OutputError, match=r"new\.onnx\.data"):
        save(model, tmp_path / "new.onnx")
    assert _disk(tmp_path) == before


@pytest.mark.parametrize("target", ["nowhere/model.onnx", ".", "file/model.onnx", "x" * 300 + ".onnx"])
def test_save_refuses_what_cannot_be_a_file(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    before = _disk(tmp_path)
    with pytest.raises(OutputError) as caught:
        save(from_proto(small_network()), tmp_path / target)
    assert _is_one_sentence(caught.value)
    assert _disk(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody may write to, such as /proc")
def test_save_refuses_a_folder_that_cannot_be_written_to() -> None:
    with pytest.raises(OutputError) as caught:
        save(from_proto(small_network()), "/proc/self/model.onnx")
    assert _is_one_sentence(caught.value)


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_save_leaves_the_old_files_when_a_rename_fails(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(_external()(tmp_path))
    save(model, tmp_path / "new.onnx")
    (tmp_path / "new.onnx").write_bytes(b"old model")
    (tmp_path / "new.onnx.data").write_bytes(b"old data")
    before = _disk(tmp_path)
    real, calls = os.replace, [0]

    def replace(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError("no space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match="no space left"):
        save(model, tmp_path / "new.onnx", force=True)
    assert _disk(tmp_path) == before


@pytest.mark.slow
def test_damaged_files_load_or_are_refused_and_nothing_else(tmp_path: Path) -> None:
    whole = small_network().SerializeToString()
    generator = np.random.default_rng(0)
    path = tmp_path / "model.onnx"
    outcomes = {"loaded": 0, "refused": 0}
    for number in range(400):
        damaged = bytearray(whole[: generator.integers(1, len(whole))] if number % 5 == 0 else whole)
        edge = min(600, len(damaged))  # names and nodes stand at the two ends, weights between them
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(-edge, edge))
            damaged[place] = int(generator.integers(256))
        path.write_bytes(damaged)
        refusal: ModelFileError | None = None
        try:
            model = load(path)
        except ModelFileError as error:
            refusal = error
        outcomes["loaded" if refusal is None else "refused"] += 1
        if refusal is None:
            infer(model)
            to_proto(model)
        else:
            assert _is_one_sentence(refusal), str(refusal)
    assert min(outcomes.values()) > 50, outcomes


def test_functions_that_call_each_other_in_a_circle_are_refused() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = [
        helper.make_function(
            "mine", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="mine")], imports
        )
        for name, other in (("First", "Second"), ("Second", "First"))
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("First", ["x"], ["y"], domain="mine")], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)
    with pytest.raises(ModelFileError, match="a circle among First, Second"):
        from_proto(model)
