"""Export JAX and Flax networks with jax2onnx.

Run from the root of the repository: ``python -m tests.zoo.make_jax [part of a name ...]``.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax import nnx
from jax2onnx import to_onnx

FOLDER = Path(__file__).parent
_GENERATOR = np.random.default_rng(0)
WEIGHTS = [_GENERATOR.normal(0, 0.3, shape).astype(np.float32) for shape in ((10, 24), (24, 16), (16, 3))]


class Cnn(nnx.Module):
    """Convolutions in channels-last, BatchNorm, pooling, flattening."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1, self.norm1 = (
            nnx.Conv(3, 8, (3, 3), rngs=rngs),
            nnx.BatchNorm(8, use_running_average=True, rngs=rngs),
        )
        self.conv2 = nnx.Conv(8, 12, (3, 3), strides=2, padding="SAME", rngs=rngs)
        self.dense, self.head = nnx.Linear(12 * 16, 24, rngs=rngs), nnx.Linear(24, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.avg_pool(nnx.relu(self.norm1(self.conv1(x))), window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        return self.head(nnx.relu(self.dense(x.reshape(x.shape[0], -1))))


class ResNet(nnx.Module):
    """Residual convolutions, mean over the map."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 12, (3, 3), rngs=rngs)
        self.first, self.second = nnx.Conv(12, 16, (3, 3), rngs=rngs), nnx.Conv(16, 12, (3, 3), rngs=rngs)
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        x = nnx.relu(x + self.second(nnx.gelu(self.first(x))))
        return self.head(jnp.mean(x, axis=(1, 2)))


class Mlp(nnx.Module):
    """Perceptron with Dropout switched off."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.norm = nnx.Linear(20, 32, rngs=rngs), nnx.BatchNorm(32, use_running_average=True, rngs=rngs)
        self.second, self.head = nnx.Linear(32, 24, rngs=rngs), nnx.Linear(24, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.softmax(self.head(nnx.tanh(self.second(nnx.silu(self.norm(self.first(x)))))))


class Transformer(nnx.Module):
    """LayerNorm, attention written out, feed-forward."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = nnx.LayerNorm(16, rngs=rngs), nnx.LayerNorm(16, rngs=rngs)
        self.q, self.k, self.v, self.out = (nnx.Linear(16, 16, rngs=rngs) for _ in range(4))
        self.up, self.down = nnx.Linear(16, 40, rngs=rngs), nnx.Linear(40, 16, rngs=rngs)
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        inner = self.norm1(x)
        q, k, v = (
            layer(inner).reshape(batch, length, 2, width // 2).transpose(0, 2, 1, 3)
            for layer in (self.q, self.k, self.v)
        )
        mixed = nnx.softmax(q @ k.transpose(0, 1, 3, 2) / 8**0.5) @ v
        x = x + self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, length, width))
        x = x + self.down(nnx.gelu(self.up(self.norm2(x))))
        return self.head(jnp.mean(x, axis=1))


def plain_mlp(x: jax.Array) -> jax.Array:
    """Functions and arrays only, no library of layers."""
    for weight in WEIGHTS[:-1]:
        x = jnp.maximum(x @ weight + 0.1, 0)
    return x @ WEIGHTS[-1]


def settle(model: nnx.Module) -> nnx.Module:
    """Random values where Flax starts with zeros and ones."""
    key = jax.random.key(1)
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Variable) and path and path[-1] in ("bias", "mean", "scale", "var"):
            key, own = jax.random.split(key)
            noise = jax.random.uniform(own, variable[...].shape)
            variable[...] = noise + 0.5 if path[-1] in ("scale", "var") else noise - 0.5
    return model


def main(wanted: list[str]) -> int:
    rngs = nnx.Rngs(0)
    models = {
        "cnn": (settle(Cnn(rngs)), ("B", 16, 16, 3), {}),
        "cnn_opset21": (settle(Cnn(rngs)), (2, 16, 16, 3), {"opset": 21}),
        "resnet_opset20": (settle(ResNet(rngs)), ("B", 12, 12, 3), {"opset": 20}),
        "mlp": (settle(Mlp(rngs)), ("B", 20), {"opset": 21}),
        "mlp_opset23": (settle(Mlp(rngs)), ("B", 20), {"opset": 23}),
        "transformer_opset21": (settle(Transformer(rngs)), (2, 6, 16), {"opset": 21}),
        "plain_mlp_opset21": (plain_mlp, ("B", 10), {"opset": 21}),
    }
    failures = 0
    for name, (model, shape, options) in models.items():
        if wanted and not any(part in f"jax_{name}" for part in wanted):
            continue
        try:
            path = FOLDER / f"jax_{name}.onnx"
            proto = to_onnx(model, inputs=[shape], **options)
            onnx.save(proto, path)
            print(f"jax_{name}: {path.stat().st_size} bytes", flush=True)
        except Exception as error:  # one refusal must not stop the others
            failures += 1
            print(f"jax_{name}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
