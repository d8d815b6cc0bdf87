"""Operators without a gradient, written in operators that have one: one function per operator, one table.

A lowering gives nodes whose last one puts out the original output name. Trainable weights keep their names:
what is derived from them is computed inside the graph, so gradients arrive at the user's own initializers.
"""

from collections.abc import Mapping

import onnx

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.lowering import activations as activations
from onnxadmm.train.lowering import einsum as einsum
from onnxadmm.train.lowering import functions as functions
from onnxadmm.train.lowering import layers as layers
from onnxadmm.train.lowering import norms as norms
from onnxadmm.train.lowering import recurrent as recurrent
from onnxadmm.train.lowering import reductions as reductions
from onnxadmm.train.lowering import spatial as spatial
from onnxadmm.train.lowering import transposed as transposed
from onnxadmm.train.lowering.writer import Lowering, Nodes, Writer
from onnxadmm.train.prepare.differentiable import trace_gradients
from onnxadmm.train.prepare.nodes import sort_nodes
from onnxadmm.train.prepare.workspace import Workspace


def fuse_batch_normalization(space: Workspace) -> int:
    """Compute a BatchNormalization that follows a Conv inside the Conv's weights; returns how many were fused.

    W' = W k, b' = (b - mean) k + bias. The same function of the same parameters, but its backward pass touches
    kilobytes of weights where Mul and Add would touch whole feature maps.
    """
    producers, uses = space.producers(), space.uses()

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" and not node.domain else None
        if conv is None or conv.op_type != "Conv" or uses[conv.output[0]] != 1:
            return None
        weight = space.shape(conv.input[1])
        if weight is None:
            return None
        write = Writer(space, node)
        factor, mean = layers.batch_factor(space, write, node)
        broadcast = write.integers(-1, *([1] * (len(weight) - 1)))  # [cout] -> [cout, 1, ...]
        kernel = write.add("Mul", conv.input[1], write.add("Reshape", factor, broadcast))
        if len(conv.input) > 2 and conv.input[2]:
            centred = write.add("Mul", write.add("Sub", conv.input[2], mean), factor)
            bias = write.add("Add", centred, node.input[2])
        else:
            bias = write.add("Sub", node.input[2], write.add("Mul", mean, factor))
        whole = onnx.NodeProto()
        whole.CopyFrom(conv)
        del whole.input[:], whole.output[:]
        whole.input.extend([conv.input[0], kernel, bias])
        whole.output.append(node.output[0])
        return [*write.nodes, whole]

    count = space.replace_nodes(rewrite)
    space.drop_dead()
    return count


def pool_before_relu(space: Workspace) -> int:
    """Let MaxPool stand before Relu where nothing else reads the Relu; returns how often.

    max commutes with max(., 0), values and gradients alike, and Relu's two passes then see a fraction of the elements.
    """
    producers, uses = space.producers(), space.uses()
    count = 0
    for pool in space.graph.node:
        relu = producers.get(pool.input[0]) if pool.op_type == "MaxPool" and len(pool.output) == 1 else None
        if relu is None or relu.op_type != "Relu" or relu.domain or uses[relu.output[0]] != 1:
            continue
        pooled = space.fresh(f"{pool.output[0]}/pooled")
        pool.input[0] = relu.input[0]
        relu.input[0], relu.output[0] = pooled, pool.output[0]
        pool.output[0] = pooled
        count += 1
    if count:
        ordered = sort_nodes(list(space.graph.node))
        del space.graph.node[:]
        space.graph.node.extend(ordered)
    return count


#: One entry per operator of the default domain that is rewritten before differentiation.
LOWERINGS: Mapping[str, Lowering] = {
    "Acos": functions.lower_by_slope,
    "Acosh": functions.lower_by_slope,
    "Asin": functions.lower_by_slope,
    "Asinh": functions.lower_by_slope,
    "Atan": functions.lower_by_slope,
    "Atanh": functions.lower_by_slope,
    "AveragePool": layers.lower_average_pool,
    "BatchNormalization": layers.lower_batch_normalization,
    "CastLike": layers.lower_cast_like,
    "Celu": activations.lower_celu,
    "Conv": layers.lower_conv,
    "ConvTranspose": transposed.lower_conv_transpose,
    "Cosh": functions.lower_by_slope,
    "CumSum": reductions.lower_cumulative_sum,
    "DepthToSpace": spatial.lower_depth_to_space,
    "Einsum": einsum.lower_einsum,
    "Elu": activations.lower_elu,
    "GRU": recurrent.lower_gru,
    "Gelu": functions.lower_gelu,
    "Gemm": layers.lower_gemm,
    "GlobalLpPool": spatial.lower_global_lp_pool,
    "GlobalMaxPool": layers.lower_global_max_pool,
    "GroupNormalization": norms.lower_group_normalization,
    "HardSigmoid": activations.lower_hard_sigmoid,
    "HardSwish": activations.lower_hard_swish,
    "InstanceNormalization": norms.lower_instance_normalization,
    "LRN": norms.lower_local_response_normalization,
    "LSTM": recurrent.lower_lstm,
    "LayerNormalization": layers.lower_layer_normalization,
    "LpNormalization": norms.lower_lp_normalization,
    "LpPool": spatial.lower_lp_pool,
    "MatMul": layers.lower_matmul,
    "Max": functions.lower_extremum,
    "MaxPool": layers.lower_max_pool,
    "Mean": activations.lower_mean,
    "MeanVarianceNormalization": norms.lower_mean_variance_normalization,
    "Min": functions.lower_extremum,
    "Mish": activations.lower_mish,
    "PRelu": activations.lower_prelu,
    "Pad": spatial.lower_pad,
    "Pow": layers.lower_pow,
    "RMSNormalization": norms.lower_rms_normalization,
    "RNN": recurrent.lower_rnn,
    "ReduceL1": reductions.lower_reduce_l1,
    "ReduceL2": reductions.lower_reduce_l2,
    "ReduceLogSum": reductions.lower_reduce_log_sum,
    "ReduceLogSumExp": layers.lower_reduction,
    "ReduceMax": reductions.lower_reduce_extremum,
    "ReduceMin": reductions.lower_reduce_extremum,
    "ReduceProd": reductions.lower_reduce_prod,
    "ReduceSumSquare": reductions.lower_reduce_sum_square,
    "Resize": spatial.lower_resize,
    "Selu": activations.lower_selu,
    "Shrink": functions.lower_shrink,
    "Sinh": functions.lower_by_slope,
    "Slice": layers.lower_slice,
    "Softplus": activations.lower_softplus,
    "Softsign": activations.lower_softsign,
    "SpaceToDepth": spatial.lower_space_to_depth,
    "Sum": activations.lower_sum,
    "Swish": functions.lower_swish,
    "Tan": functions.lower_tan,
    "ThresholdedRelu": functions.lower_thresholded_relu,
}


def lower(space: Workspace, *, weights: frozenset[str], logits: str) -> dict[str, NotTrainableError]:
    """Apply the table to every node between the weights and the logits, results of lowerings included.

    Args:
        weights: names of the constants to train; shapes must be inferred.

    Returns:
        Why a node of the table could not be lowered, by its first output.
    """
    if fuse_batch_normalization(space) + pool_before_relu(space):
        space.infer()
    settled: set[str] = set()
    refused: dict[str, NotTrainableError] = {}

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        table = LOWERINGS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if table is None or node.output[0] in settled or not trace.holds(node):
            return None
        try:
            made = table(space, node)
        except NotTrainableError as error:
            refused[node.output[0]] = error
            settled.add(node.output[0])
            return None
        if any(new is node for new in made):
            settled.add(node.output[0])
        return made

    while True:
        trace = trace_gradients(space.graph.node, weights=weights, logits=logits)
        if not space.replace_nodes(rewrite):
            return refused
        space.infer()
