"""Models that end in ZipMap: onnx_ir knows no maps, users' classifiers do."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from onnxadmm.graph.model import clone, load, save, to_proto


def zip_map_model() -> onnx.ModelProto:
    scores = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(entry))
    node = helper.make_node("ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[3, 7])
    graph = helper.make_graph([node], "zip", [scores], [output])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_an_output_of_maps_survives_loading_cloning_and_saving(tmp_path: Path) -> None:
    source = zip_map_model()
    model = clone(load(source))
    assert to_proto(model).graph.output[0] == source.graph.output[0]
    save(model, tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx").graph.output[0] == source.graph.output[0]
