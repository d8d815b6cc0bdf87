"""Sparse storage of weights: made dense at the door, stored sparse again where that makes the file smaller.

Found with onnxruntime 1.19.2 and 1.32, for the weights of Conv, Gemm and MatMul: both read linear and coordinate
indices, of type int64 and int32. The checker wants int64; linear ones as packed varints are by far the smallest (1 to
3 bytes per index instead of 8 or more), and both runtimes read them. Both also take a name that is listed among the
graph inputs, but ONNX's own shape inference refuses that, so such names stay dense. ONNX's shape inference does not
see the shape of sparse weights either: in strict mode it wants them dense, as ``load`` makes them.
"""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.weights import WeightFiles, mapped_tensor
from onnxadmm.graph.wire import mark

# Sparse tensors inside a model came with this version of the file format.
OLDEST_IR_VERSION = 6

#: Sparse tensors may take this many bytes when they are dense, and so many more for each byte of the file: one
#: weight in a thousand, in a large network.
SMALLEST_BOMB = 2**28
MOST_GROWTH = 1024

_BITS = {
    onnx_ir.DataType.FLOAT: np.uint32,
    onnx_ir.DataType.DOUBLE: np.uint64,
    onnx_ir.DataType.FLOAT16: np.uint16,
}


def densify(proto: onnx.ModelProto, *, thing: str, files: WeightFiles) -> frozenset[str]:
    """Make sparse initializers and ``sparse_value`` of Constant nodes dense, in place and in subgraphs too.

    The dense bytes are handed to ``files``; the tensors in ``proto`` point there.

    Returns:
        names of the main graph's initializers that were sparse.

    Raises:
        ModelFileError: indices or values do not fit the shape, or a small file would take a lot of memory.
    """
    _refuse_bomb(proto, thing=thing, files=files)
    names = frozenset(sparse.values.name for sparse in proto.graph.sparse_initializer)
    for graph in _graphs(proto):
        for sparse in graph.sparse_initializer:
            _make_dense(sparse, graph.initializer.add(name=sparse.values.name), thing=thing, files=files)
        del graph.sparse_initializer[:]
        _densify_constants(graph.node, thing=thing, files=files)
    for function in proto.functions:
        _densify_constants(function.node, thing=thing, files=files)
    return names


def to_sparse(name: str, tensor: onnx_ir.TensorProtocol) -> onnx.SparseTensorProto | None:
    """Return ``tensor`` in sparse form when that takes fewer bytes than the dense one, else None.

    Only float16, float32 and float64 of at least one axis; -0.0 counts as non-zero, so no bit is lost.
    """
    bits = _BITS.get(tensor.dtype)
    shape = tuple(tensor.shape.numpy())
    if bits is None or not shape:
        return None
    array = tensor.numpy().reshape(-1)
    (indices,) = np.nonzero(array.view(np.dtype(bits).newbyteorder("<")))
    if indices.size * (array.itemsize + 1) >= array.nbytes:
        return None
    sparse = onnx.SparseTensorProto(dims=shape)
    sparse.values.name = name
    sparse.values.data_type = tensor.dtype.value
    sparse.values.dims.append(indices.size)
    sparse.values.raw_data = array[indices].tobytes()
    sparse.indices.data_type = onnx.TensorProto.INT64
    sparse.indices.dims.append(indices.size)
    sparse.indices.int64_data.extend(indices.tolist())
    dense_overhead = onnx.TensorProto(name=name, dims=shape, data_type=tensor.dtype.value).ByteSize()
    return sparse if sparse.ByteSize() < array.nbytes + dense_overhead else None


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    waiting = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    while waiting or nodes:
        if waiting:
            graph = waiting.pop()
            yield graph
            nodes.extend(graph.node)
        else:
            for attribute in nodes.pop().attribute:
                waiting.extend(attribute.graphs)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)


def _refuse_bomb(proto: onnx.ModelProto, *, thing: str, files: WeightFiles) -> None:
    """Refuse sparse tensors that would together take far more memory than such a file is worth."""
    graphs = list(_graphs(proto))
    nodes = [node for part in (*graphs, *proto.functions) for node in part.node]
    tensors = [sparse for graph in graphs for sparse in graph.sparse_initializer]
    tensors += [item.sparse_tensor for node in nodes for item in node.attribute if item.HasField("sparse_tensor")]
    # Eight bytes for each element, whatever its type; a negative length is refused where its tensor is made dense.
    needed = sum(8 * prod(max(length, 0) for length in tensor.dims) for tensor in tensors)
    allowed = SMALLEST_BOMB + MOST_GROWTH * files.total_bytes
    if needed > allowed:
        raise ModelFileError(
            thing,
            expected=f"sparse tensors of at most {allowed} bytes when dense, in a file of {files.total_bytes}",
            found=f"{needed} bytes",
            way_out="store them densely",
        )


def _densify_constants(nodes: Iterable[onnx.NodeProto], *, thing: str, files: WeightFiles) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                sparse = onnx.SparseTensorProto()
                sparse.CopyFrom(attribute.sparse_tensor)
                attribute.Clear()
                attribute.name = "value"
                attribute.type = onnx.AttributeProto.TENSOR
                _make_dense(sparse, attribute.t, thing=thing, files=files)


def _make_dense(sparse: onnx.SparseTensorProto, dense: onnx.TensorProto, *, thing: str, files: WeightFiles) -> None:
    shape = tuple(sparse.dims)
    try:
        values = _array(sparse.values, files).reshape(-1)
        indices = _array(sparse.indices, files)
        if indices.ndim == 2:  # [nnz, rank] -> [nnz]
            indices = np.ravel_multi_index(tuple(indices.T), shape)
        array = np.zeros(prod(shape), dtype=values.dtype)
        if indices.shape != values.shape or (indices.size and indices.min() < 0):
            raise ValueError(f"{indices.size} indices for {values.size} values")
        array[indices] = values
    except (ValueError, IndexError, TypeError, MemoryError) as error:
        raise ModelFileError(
            thing,
            expected=f"sparse tensor {sparse.values.name!r} to fit its shape {list(shape)}",
            found=str(error),
            way_out="export the model again",
        ) from error
    dense.dims.extend(shape)
    dense.data_type = sparse.values.data_type
    data = memoryview(array.tobytes())
    mark(dense, files.add(data), 0, len(data))


def _array(tensor: onnx.TensorProto, files: WeightFiles) -> NDArray[Any]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return np.asarray(mapped_tensor(tensor, files.slice(tensor)).numpy())
    return np.asarray(numpy_helper.to_array(tensor))
