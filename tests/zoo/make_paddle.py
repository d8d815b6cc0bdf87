"""Export PaddlePaddle networks with paddle2onnx.

Run from the root of the repository: ``python -m tests.zoo.make_paddle [part of a name ...]``.
"""

import sys
import tempfile
from pathlib import Path

import paddle
import paddle2onnx
from paddle import nn
from paddle.nn import functional

FOLDER = Path(__file__).parent


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(outputs), nn.ReLU())


class LeNet(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2D(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2D(2), nn.Conv2D(6, 12, 5), nn.ReLU(), nn.MaxPool2D(2)
        )
        self.head = nn.Sequential(nn.Linear(12 * 25, 24), nn.ReLU(), nn.Linear(24, 10))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(paddle.flatten(self.features(x), 1))


class ResNet(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = conv_bn(3, 8), conv_bn(8, 12, stride=2), nn.Conv2D(12, 12, 3, padding=1)
        self.shortcut, self.head = nn.Conv2D(8, 12, 1, 2), nn.Linear(12, 5)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(x)
        x = functional.relu(self.second(self.first(x)) + self.shortcut(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class MobileNet(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(3, 8, stride=2), conv_bn(8, 24, 1), conv_bn(24, 24, groups=24), conv_bn(24, 12, 1)
        )
        self.down, self.up = nn.Conv2D(12, 4, 1), nn.Conv2D(4, 12, 1)
        self.head = nn.Sequential(
            nn.Conv2D(12, 20, 1), nn.Hardswish(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(20, 5)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.body(x)
        gate = functional.hardsigmoid(self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))))
        return functional.softmax(self.head(x * gate))


class UNet(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom, self.up = conv_bn(3, 8), conv_bn(8, 12), nn.Conv2DTranspose(12, 8, 2, 2)
        self.head = nn.Sequential(conv_bn(16, 8), nn.Conv2D(8, 2, 1))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        first = self.down(x)
        up = self.up(self.bottom(functional.max_pool2d(first, 2)))
        return functional.sigmoid(self.head(paddle.concat([first, up], 1)))


class Transformer(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(40, 16), nn.TransformerEncoderLayer(16, 2, 40)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.layer(self.words(tokens)).mean(1))


class Lstm(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(6, 12), nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.body(x)[0][:, -1])


def main(wanted: list[str]) -> int:
    paddle.set_device("cpu")
    models = {
        "lenet": (LeNet, [None, 1, 28, 28], "float32"),
        "resnet": (ResNet, [None, 3, 16, 16], "float32"),
        "mobilenet": (MobileNet, [None, 3, 16, 16], "float32"),
        "unet": (UNet, [None, 3, 16, 16], "float32"),
        "transformer": (Transformer, [None, 6], "int64"),
        "lstm": (Lstm, [None, 7, 6], "float32"),
    }
    failures = 0
    for name, (build, shape, dtype) in models.items():
        if wanted and not any(part in f"paddle_{name}" for part in wanted):
            continue
        paddle.seed(0)
        model = build()
        sample = [2, *shape[1:]]
        model.train()
        for _ in range(4):  # statistics that differ per channel
            model(paddle.randn(sample) * 1.5 + 0.3 if dtype == "float32" else paddle.randint(0, 40, sample))
        model.eval()
        path = FOLDER / f"paddle_{name}.onnx"
        try:
            with tempfile.TemporaryDirectory() as folder:
                stem = str(Path(folder) / "model")
                paddle.jit.save(model, stem, input_spec=[paddle.static.InputSpec(shape, dtype, "x")])
                program = next(p for p in (f"{stem}.json", f"{stem}.pdmodel") if Path(p).exists())
                paddle2onnx.export(program, f"{stem}.pdiparams", str(path))
            print(f"paddle_{name}: {path.stat().st_size} bytes", flush=True)
        except Exception as error:  # one refusal must not stop the others
            failures += 1
            print(f"paddle_{name}: {type(error).__name__}: {str(error).strip().splitlines()[-1:]}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
