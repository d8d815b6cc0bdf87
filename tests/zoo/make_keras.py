"""Export Keras networks with tf2onnx.

Run from the root of the repository: ``python -m tests.zoo.make_keras [part of a name ...]``.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

FOLDER = Path(__file__).parent
LIMIT = 150_000
Tensor = keras.KerasTensor


def conv_bn(x: Tensor, width: int, kernel: int = 3, stride: int = 1, activation: str | None = "relu") -> Tensor:
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def lenet() -> keras.Model:
    """SAME and VALID convolutions, Flatten of an NHWC map."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 5, activation="relu"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )


def same_padding() -> keras.Model:
    """Strided SAME convolutions on an odd size, whose padding is not symmetric."""
    return keras.Sequential(
        [
            keras.Input((15, 15, 3)),
            layers.Conv2D(8, 3, 2, padding="same", activation="relu"),
            layers.Conv2D(12, 4, 2, padding="same", activation="elu"),
            layers.MaxPooling2D(3, 1, padding="same"),
            layers.Flatten(),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Dense(4),
        ]
    )


def resnet() -> keras.Model:
    """Functional ResNet with identity and projection shortcuts, ZeroPadding2D before the stem."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, 2)(layers.ZeroPadding2D(1)(inputs))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for width, stride in ((8, 1), (16, 2), (16, 1)):
        shortcut = x if stride == 1 else conv_bn(x, width, 1, stride, None)
        inner = conv_bn(conv_bn(x, width, 3, stride), width, 3, 1, None)
        x = layers.ReLU()(layers.add([inner, shortcut]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def mobilenet() -> keras.Model:
    """Depthwise and separable convolutions, ReLU6, squeeze-and-excitation by Reshape and Dense."""
    inputs = keras.Input((24, 24, 3))
    x = conv_bn(inputs, 8, 3, 2)
    for width in (12, 16):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = conv_bn(x, width, 1)
        gate = layers.Reshape((1, 1, width))(layers.GlobalAveragePooling2D()(x))
        gate = layers.Dense(width, activation="sigmoid")(layers.Dense(6, activation="relu")(gate))
        x = layers.multiply([x, gate])
    x = layers.SeparableConv2D(20, 3, padding="same", activation="swish")(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def unet() -> keras.Model:
    """Conv2DTranspose, UpSampling2D, Concatenate on the last axis."""
    inputs = keras.Input((16, 16, 3))
    first = conv_bn(inputs, 8)
    second = conv_bn(layers.MaxPooling2D()(first), 12)
    bottom = conv_bn(layers.MaxPooling2D()(second), 16)
    up = layers.concatenate([layers.Conv2DTranspose(12, 2, 2)(bottom), second])
    up = layers.concatenate([layers.UpSampling2D(2, interpolation="bilinear")(conv_bn(up, 12)), first])
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="sigmoid")(conv_bn(up, 8)))


def densenet() -> keras.Model:
    """Dense block with concatenation."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(3):
        inner = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.concatenate([x, layers.Conv2D(6, 3, padding="same", use_bias=False)(inner)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalMaxPooling2D()(x)))


def autoencoder() -> keras.Model:
    """Perceptron auto-encoder, zero biases dropped by the exporter."""
    inputs = keras.Input((48,))
    code = layers.Dense(8, activation="relu")(layers.Dense(24, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(48, activation="sigmoid")(layers.Dense(24, activation="selu")(code)))


def time_series() -> keras.Model:
    """1-D convolutions, causal padding."""
    return keras.Sequential(
        [
            keras.Input((24, 4)),
            layers.Conv1D(12, 3, padding="causal", activation="relu"),
            layers.Conv1D(16, 3, 2, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalMaxPooling1D(),
            layers.Dense(12, activation="tanh"),
            layers.Dense(2),
        ]
    )


def lstm() -> keras.Model:
    """Embedding, bidirectional LSTM that returns sequences, LSTM."""
    return keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(40, 10),
            layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
            layers.LSTM(12),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )


def gru() -> keras.Model:
    """GRU on features, Dense on every step."""
    return keras.Sequential(
        [
            keras.Input((8, 6)),
            layers.GRU(12, return_sequences=True),
            layers.TimeDistributed(layers.Dense(10, activation="relu")),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def smooth(x: Tensor) -> Tensor:
    """GELU by tanh; the exporter has no symbol for the exact one."""
    return keras.ops.gelu(x, approximate=True)


def transformer() -> keras.Model:
    """Token and position embedding, MultiHeadAttention, feed-forward, LayerNormalization."""
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(40, 16)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(40, activation=smooth)(x)))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def two_inputs() -> keras.Model:
    """An image and a vector, two outputs."""
    image, vector = keras.Input((12, 12, 1)), keras.Input((5,))
    x = layers.Flatten()(layers.MaxPooling2D()(layers.Conv2D(6, 3, activation="relu")(image)))
    x = layers.concatenate([layers.Dense(16, activation="relu")(x), layers.Dense(8, activation="relu")(vector)])
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model([image, vector], [layers.Dense(3, activation="softmax")(x), layers.Dense(1)(x)])


MODELS: dict[str, Callable[[], keras.Model]] = {
    "lenet": lenet,
    "same_padding": same_padding,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "unet": unet,
    "densenet": densenet,
    "autoencoder": autoencoder,
    "time_series": time_series,
    "lstm": lstm,
    "gru": gru,
    "transformer": transformer,
    "two_inputs": two_inputs,
}


def settle(model: keras.Model, *, biases: bool) -> None:
    """Weights that keep the variance of what they read; random biases and statistics where Keras starts with zeros."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        shape = variable.shape
        if "kernel" in variable.path and "recurrent" not in variable.path:
            reads = np.prod(shape[:2]) if "depthwise" in variable.path else np.prod(shape[:-1])
            variable.assign(generator.normal(0, np.sqrt(2 / reads), shape))
        elif "variance" in variable.path or "gamma" in variable.path:
            variable.assign(generator.uniform(0.5, 1.5, shape))
        elif biases and any(part in variable.path for part in ("mean", "beta", "bias")):
            variable.assign(generator.normal(0, 0.2, shape))


def export(name: str) -> int:
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    settle(model, biases=name != "autoencoder")
    signature = [tf.TensorSpec(x.shape, x.dtype, name=f"input_{n}") for n, x in enumerate(model.inputs)]
    # tf2onnx's own Keras door does not know Keras 3; a traced function is what it accepts.
    function = tf.function(lambda *tensors: model(list(tensors) if len(tensors) > 1 else tensors[0], training=False))
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature)
    path = FOLDER / f"keras_{name}.onnx"
    onnx.save(proto, path)
    assert path.stat().st_size <= LIMIT
    return path.stat().st_size


def main(wanted: list[str]) -> int:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    failures = 0
    for name in MODELS:
        if wanted and not any(part in f"keras_{name}" for part in wanted):
            continue
        try:
            print(f"keras_{name}: {export(name)} bytes", flush=True)
        except Exception as error:  # one refusal must not stop the others
            failures += 1
            print(f"keras_{name}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
