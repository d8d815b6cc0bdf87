import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.errors import DataError, NotTrainableError, OptionError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import mlp, model_of, random
from tests.train.oracle import gradient_error, mean_square_to

pytestmark = pytest.mark.usefixtures("engine")

MSE = Loss(Task.MSE)


def step(model: onnx.ModelProto, *, batch: int = 3, shape: tuple[int, ...] = (2, 6, 6)) -> dict[str, np.ndarray]:
    """Gradients by name of one step on random data."""
    with OrtTrainer(model, loss=MSE, batch_size=batch) as trainer:
        target = random(trainer.artifacts.logits_shape, seed=1)
        name = trainer.artifacts.inputs[0].name
        trainer.backward(Batch({name: random([batch, *shape], seed=2)}, target, None, batch))
        return {name: gradient.copy() for name, gradient in trainer.gradients.items()}


def convnet(*, batch: int | str = "N", opset: int = 17, target: tuple[int, ...] = (0, -1)) -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1], name="conv"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Reshape", ["r", "target"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "v", "c"], ["out"], name="linear"),
        ],
        inputs={"x": [batch, 2, 6, 6]},
        outputs=["out"],
        weights={
            "w": random([4, 2, 3, 3], seed=1),
            "b": random([4], seed=2),
            "v": random([144, 3], seed=3, scale=0.3),
            "c": random([3], seed=4),
            "target": np.array(target, np.int64),
        },
        opset=opset,
    )


def test_model_is_left_as_it_was() -> None:
    model = convnet()
    before = model.SerializeToString()
    prepare(model, loss=MSE, batch_size=4)
    assert model.SerializeToString() == before


def test_batch_of_a_model_exported_for_one_sample_is_restamped() -> None:
    loose, fixed = step(convnet()), step(convnet(batch=1, target=(1, 144)))
    assert loose.keys() == fixed.keys()
    for name, gradient in loose.items():
        np.testing.assert_array_equal(gradient, fixed[name])


def test_weights_in_constant_nodes_behind_identity_and_listed_as_inputs_train_alike() -> None:
    plain = convnet()
    odd = convnet()
    graph = odd.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    constant = helper.make_node("Constant", [], ["v"], value=tensors["v"])
    identity = helper.make_node("Identity", ["w"], ["w.same"])
    graph.node.insert(0, constant)
    graph.node.insert(0, identity)
    next(node for node in graph.node if node.name == "conv").input[1] = "w.same"
    graph.initializer.remove(tensors["v"])
    graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [4]))
    expected, found = step(plain), step(odd)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        np.testing.assert_array_equal(gradient, found[name])


def test_shape_chain_of_a_dynamic_reshape_is_folded() -> None:
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Shape", ["h"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
            helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["h", "target"], ["f"]),
            helper.make_node("MatMul", ["f", "v"], ["out"]),
        ],
        inputs={"x": ["N", 2, 6, 6]},
        outputs=["out"],
        weights={
            "w": random([4, 2, 3, 3]),
            "v": random([144, 3]),
            "zero": np.array(0, np.int64),
            "axis": np.array([0], np.int64),
            "rest": np.array([-1], np.int64),
        },
    )
    artifacts = prepare(model, loss=MSE, batch_size=3)
    kinds = {node.op_type for node in artifacts.forward.graph.node}
    assert not kinds & {"Shape", "Gather", "Concat", "Unsqueeze"}
    assert set(artifacts.weights) == {"w", "v"}


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 18, 20, 21, 22, 23, onnx.defs.onnx_opset_version()])
def test_opsets_from_old_to_new_train(opset: int) -> None:
    target = random([3, 3], seed=1)
    error = gradient_error(
        convnet(opset=opset),
        loss=MSE,
        inputs={"x": random([3, 2, 6, 6], seed=2)},
        labels=target,
        oracle=mean_square_to(target),
    )
    assert error < 2e-4


def test_newest_ir_version_trains() -> None:
    model = convnet()
    model.ir_version = onnx.IR_VERSION
    assert set(step(model)) == {"w", "b", "v", "c"}


def test_dropout_does_nothing() -> None:
    model = convnet()
    drop = helper.make_node("Dropout", ["r"], ["d"], name="drop")
    model.graph.node.insert(2, drop)
    model.graph.node[3].input[0] = "d"
    for name, gradient in step(convnet()).items():
        np.testing.assert_array_equal(gradient, step(model)[name])


def test_only_chosen_weights_train() -> None:
    artifacts = prepare(convnet(), loss=MSE, batch_size=3, trainable=["v", "c"])
    assert set(artifacts.weights) == {"v", "c"}


def test_unknown_weight_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="nothing-like-this"):
        prepare(convnet(), loss=MSE, batch_size=3, trainable=["nothing-like-this"])


def test_operator_without_gradient_is_refused_by_operator_and_node() -> None:
    model = convnet()
    model.graph.node[1].CopyFrom(helper.make_node("Bernoulli", ["h"], ["r"], name="odd_one"))
    with pytest.raises(NotTrainableError, match=r"Bernoulli \(odd_one\)"):
        prepare(model, loss=MSE, batch_size=3)


def test_operator_without_gradient_before_all_weights_is_no_obstacle() -> None:
    model = convnet()
    model.graph.node.insert(0, helper.make_node("Bernoulli", ["x"], ["x1"]))
    model.graph.node[1].input[0] = "x1"
    assert set(step(model)) == {"w", "b", "v", "c"}


def test_operator_of_an_unknown_domain_is_refused_by_name() -> None:
    model = convnet()
    model.graph.node[1].CopyFrom(helper.make_node("Trick", ["h"], ["r"], name="odd_one", domain="my.own"))
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    with pytest.raises(NotTrainableError, match="Trick"):
        prepare(model, loss=MSE, batch_size=3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_other_precision_are_refused(dtype: type) -> None:
    model = mlp()
    for tensor in list(model.graph.initializer):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    with pytest.raises(NotTrainableError, match="float32"):
        prepare(model, loss=MSE, batch_size=3)


def test_open_image_size_needs_the_shape_of_a_sample() -> None:
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["h"]),
            helper.make_node("GlobalAveragePool", ["h"], ["p"]),
            helper.make_node("Flatten", ["p"], ["out"]),
        ],
        inputs={"x": ["N", 2, "H", "W"]},
        outputs=["out"],
        weights={"w": random([4, 2, 3, 3])},
    )
    with pytest.raises(NotTrainableError, match="input x"):
        prepare(model, loss=MSE, batch_size=3)
    assert prepare(model, loss=MSE, batch_size=3, input_shapes={"x": (2, 8, 9)}).inputs[0].shape == (3, 2, 8, 9)
    with pytest.raises(DataError, match=r"\[3, 8, 9\]"):
        prepare(model, loss=MSE, batch_size=3, input_shapes={"x": (3, 8, 9)})


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(OptionError, match="--batch-size"):
        prepare(mlp(), loss=MSE, batch_size=0)


def test_model_without_weights_is_refused() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], inputs={"x": ["N", 4]}, outputs=["y"], weights={})
    with pytest.raises(NotTrainableError, match="weight"):
        prepare(model, loss=MSE, batch_size=3)


def test_standardisation_and_constants_of_activations_stay_but_biases_train() -> None:
    model = model_of(
        [
            helper.make_node("Sub", ["x", "mean"], ["x1"]),
            helper.make_node("MatMul", ["x1", "w"], ["h"]),
            helper.make_node("Add", ["bias", "h"], ["h1"]),
            helper.make_node("Mul", ["h1", "half"], ["h2"]),
            helper.make_node("Mul", ["h2", "gain"], ["h3"]),
            helper.make_node("MatMul", ["h3", "v"], ["h4"]),
            helper.make_node("Add", ["h4", "last"], ["out"]),
        ],
        inputs={"x": ["N", 6]},
        outputs=["out"],
        weights={
            "mean": random([6]),
            "w": random([6, 5]),
            "bias": random([5]),
            "half": np.array(0.5, np.float32),
            "gain": random([5]),
            "v": random([5, 1]),
            "last": random([1]),
        },
    )
    assert set(prepare(model, loss=MSE, batch_size=3).weights) == {"w", "bias", "gain", "v", "last"}


def test_weight_behind_a_transpose_trains_under_its_own_name() -> None:
    model = model_of(
        [
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["out"]),
        ],
        inputs={"x": ["N", 6]},
        outputs=["out"],
        weights={"w": random([4, 6])},
    )
    target = random([3, 4], seed=1)
    error = gradient_error(
        model, loss=MSE, inputs={"x": random([3, 6], seed=2)}, labels=target, oracle=mean_square_to(target)
    )
    assert error < 1e-4


def test_shared_weight_gets_the_sum_of_its_gradients() -> None:
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "w"], ["out"]),
        ],
        inputs={"x": ["N", 5]},
        outputs=["out"],
        weights={"w": random([5, 5], scale=0.5)},
    )
    target = random([3, 5], seed=1)
    error = gradient_error(
        model, loss=MSE, inputs={"x": random([3, 5], seed=2)}, labels=target, oracle=mean_square_to(target)
    )
    assert error < 1e-4


@pytest.mark.parametrize(("batch_size", "weight"), [(8, "taken"), (4, "other")])
def test_a_branch_that_the_batch_size_decides_trains_the_weights_it_reads(batch_size: int, weight: str) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        branches (float[N, 2] x) => (float[N, 2] logits)
        <float[2, 2] taken = {1, 2, 3, 4}, float[2, 2] other = {5, 6, 7, 8}>
        {
            zero = Constant<value_int = 0>()
            eight = Constant<value_int = 8>()
            sizes = Shape(x)
            batch = Gather(sizes, zero)
            is_eight = Equal(batch, eight)
            logits = If (is_eight) <
                then_branch = one () => (float[N, 2] y) { y = MatMul(x, taken) },
                else_branch = two () => (float[N, 2] z) { z = MatMul(x, other) }
            >
        }
        """
    )
    assert list(prepare(model, loss=Loss(), batch_size=batch_size).weights) == [weight]
