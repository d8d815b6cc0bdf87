from onnxadmm.train.lowering import LOWERINGS
from tests.train.test_lower_activations import ACTIVATIONS

#: Entries with tests of their own.
LAYERS = {
    *("AveragePool", "BatchNormalization", "Conv", "Gemm", "GlobalMaxPool", "LayerNormalization", "MaxPool"),
    *("Pow", "ReduceL2", "ReduceLogSumExp", "Slice"),
}


def test_every_entry_of_the_table_is_compared_with_finite_differences() -> None:
    assert set(LOWERINGS) <= {*ACTIVATIONS, "Mish", "PRelu", "Sum", "Mean"} | LAYERS
