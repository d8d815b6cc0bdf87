"""Export the PyTorch networks of this folder with both exporters.

Run from the root of the repository: ``python -m tests.zoo.make_torch [part of a name ...]``.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from tests.zoo import torch_classifiers as classifiers
from tests.zoo import torch_dense as dense
from tests.zoo import torch_mobile as mobile
from tests.zoo import torch_others as others
from tests.zoo import torch_transformers as transformers

FOLDER = Path(__file__).parent
LIMIT = 150_000  # bytes of one file


@dataclass(frozen=True)
class Network:
    """What is exported: how it is built, inputs of two samples, and how.

    Attributes:
        free: the batch axis stays free.
        opset: the exporter's default where None.
        exporters: ``dynamo`` and ``script``.
        raw: without the exporter's optimiser and constant folding: BatchNorm kept, weights behind Transpose.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    free: bool = True
    opset: int | None = None
    exporters: tuple[str, ...] = ("dynamo", "script")
    raw: bool = False


def image(size: int, channels: int = 3) -> Tensor:
    """Two random images, NCHW."""
    return torch.randn(2, channels, size, size)


def tokens(length: int, count: int) -> Tensor:
    """Two random token sequences."""
    return torch.randint(0, count, (2, length))


def networks() -> dict[str, Network]:
    """Every network by name."""
    torch.manual_seed(0)
    picture, recurrent = (image(32),), others.Recurrent
    text = (tokens(8, 40),)
    bert = (tokens(8, 60), torch.tensor([[1] * 8, [1] * 5 + [0] * 3]), torch.zeros(2, 8, dtype=torch.int64))
    script, dynamo = ("script",), ("dynamo",)
    return {
        "lenet": Network(classifiers.lenet, (image(28, 1),)),
        "vgg": Network(partial(classifiers.vgg, norm=False), picture, free=False),
        "vgg_bn": Network(partial(classifiers.vgg, norm=True), picture),
        "alexnet": Network(classifiers.alexnet, (image(63),)),
        "resnet_basic": Network(classifiers.resnet_basic, picture),
        "resnet_bottleneck": Network(classifiers.resnet_bottleneck, (image(16),)),
        "resnet_preactivation": Network(classifiers.resnet_preactivation, picture),
        "resnet_padded": Network(classifiers.resnet_padded, picture),
        "resnext": Network(partial(classifiers.resnet_bottleneck, groups=4), (image(16),)),
        "resnet_opset9": Network(classifiers.resnet_basic, picture, opset=9, exporters=script),
        "vgg_opset11": Network(partial(classifiers.vgg, norm=True), picture, opset=11, exporters=script),
        "mobilenet_v3_opset11": Network(mobile.mobilenet_v3, picture, opset=11, exporters=script),
        "bert_opset12": Network(transformers.Bert, bert, opset=12, exporters=script),
        "unet_opset9": Network(partial(dense.UNet, resize=False), picture, opset=9, exporters=script),
        "lstm_opset9": Network(partial(recurrent, nn.LSTM), text, opset=9, exporters=script),
        "bert_opset23": Network(partial(transformers.Bert, fused=True), bert, opset=23, exporters=dynamo),
        "vit_opset23": Network(
            partial(transformers.VisionTransformer, fused=True), (image(16),), opset=23, exporters=dynamo
        ),
        "masked_attention_opset23": Network(
            transformers.MaskedAttention,
            (torch.randn(2, 6, 10), torch.ones(6, 6).tril().bool()),
            opset=23,
            exporters=dynamo,
        ),
        "llama_opset23": Network(transformers.Llama, (tokens(8, 50),), opset=23, exporters=dynamo),
        "resnet_raw": Network(classifiers.resnet_basic, picture, raw=True),
        "mobilenet_v3_raw": Network(mobile.mobilenet_v3, picture, raw=True),
        "unet_raw": Network(partial(dense.UNet, resize=True), picture, raw=True),
        "bert_raw": Network(partial(transformers.Bert, fused=True), bert, raw=True),
        "lstm_raw": Network(partial(recurrent, nn.LSTM, both=True, last="state"), text, raw=True),
        "mlp_raw": Network(others.mlp, (torch.randn(2, 20),), raw=True),
        "densenet": Network(classifiers.densenet, (image(16),)),
        "inception": Network(classifiers.Inception, (image(16),)),
        "squeezenet": Network(classifiers.squeezenet, picture),
        "res2net": Network(classifiers.res2net, picture),
        "cspnet": Network(classifiers.cspnet, picture),
        "mobilenet_v1": Network(mobile.mobilenet_v1, picture),
        "mobilenet_v2": Network(mobile.mobilenet_v2, picture),
        "mobilenet_v3": Network(mobile.mobilenet_v3, picture),
        "efficientnet": Network(mobile.efficientnet, picture),
        "efficientnet_view": Network(partial(mobile.efficientnet, linear_gate=True), picture),
        "shufflenet_v1": Network(partial(mobile.shufflenet_v1, width=36), picture),
        "shufflenet_v2": Network(mobile.shufflenet_v2, picture),
        "shufflenet_v2_fixed": Network(mobile.shufflenet_v2, picture, free=False),
        "ghostnet": Network(mobile.ghostnet, picture),
        "repvgg": Network(mobile.repvgg, picture),
        "convnext": Network(mobile.convnext, picture),
        "attention_cnn": Network(mobile.attention_cnn, (image(16),)),
        "unet_transposed": Network(partial(dense.UNet, resize=False), picture),
        "unet_resize": Network(partial(dense.UNet, resize=True), picture),
        "yolo": Network(dense.Yolo, picture),
        "yolo_fixed": Network(dense.Yolo, picture, free=False),
        "ssd": Network(dense.Ssd, picture),
        "feature_pyramid": Network(dense.FeaturePyramid, picture),
        "deeplab": Network(dense.DeepLab, picture),
        "super_resolution": Network(dense.SuperResolution, (image(12),)),
        "pixel_unshuffle": Network(dense.PixelUnshuffleNet, (image(16),)),
        "conv_autoencoder": Network(dense.conv_autoencoder, (image(28, 1),)),
        "mlp_autoencoder": Network(dense.mlp_autoencoder, (torch.randn(2, 64),)),
        "variational": Network(dense.VariationalDecoder, (image(16, 1), torch.randn(2, 6))),
        "generator": Network(dense.generator, (torch.randn(2, 16, 1, 1),)),
        "style_transfer": Network(dense.style_transfer, picture),
        "high_resolution": Network(dense.HighResolution, picture),
        "center_net": Network(dense.CenterNet, picture),
        "vit": Network(transformers.VisionTransformer, (image(16),)),
        "vit_fused": Network(partial(transformers.VisionTransformer, fused=True), (image(16),)),
        "swin": Network(transformers.Swin, picture),
        "swin_fixed": Network(transformers.Swin, picture, free=False),
        "mixer": Network(transformers.Mixer, (image(16),)),
        "bert": Network(transformers.Bert, bert),
        "bert_fused": Network(partial(transformers.Bert, fused=True), bert),
        "gpt": Network(transformers.Gpt, (tokens(8, 60),)),
        "llama": Network(transformers.Llama, (tokens(8, 50),)),
        "glu": Network(transformers.GluFeedForward, (torch.randn(2, 6, 12),)),
        "multihead": Network(
            transformers.MultiheadModule, (torch.randn(2, 6, 10), torch.zeros(2, 6, dtype=torch.bool))
        ),
        "masked_attention": Network(
            transformers.MaskedAttention, (torch.randn(2, 6, 10), torch.ones(6, 6).tril().bool())
        ),
        "encoder_decoder": Network(transformers.EncoderDecoder, (tokens(6, 40), tokens(5, 40))),
        "detr": Network(transformers.Detr, (image(16),)),
        "einsum_attention": Network(transformers.EinsumAttention, (torch.randn(2, 6, 12),)),
        "channel_attention": Network(transformers.ChannelAttention, (image(12),)),
        "tcn": Network(others.TemporalNet, (torch.randn(2, 4, 24),)),
        "wavenet": Network(others.WaveNet, (torch.randn(2, 1, 20),)),
        "conv3d": Network(others.conv3d, (torch.randn(2, 1, 8, 16, 16),)),
        "lstm": Network(partial(recurrent, nn.LSTM), text),
        "lstm_stacked_both": Network(partial(recurrent, nn.LSTM, layers=2, both=True, last="mean"), text),
        "gru": Network(partial(recurrent, nn.GRU), text),
        "gru_both_state": Network(partial(recurrent, nn.GRU, both=True, last="state"), text),
        "rnn": Network(partial(recurrent, nn.RNN, layers=2), text, free=False),
        "crnn": Network(others.Crnn, (torch.randn(2, 1, 8, 24),)),
        "text_cnn": Network(others.TextCnn, (tokens(12, 60),)),
        "recommender": Network(others.Recommender, (torch.randn(2, 6), torch.randint(0, 10, (2, 3)))),
        "wide_and_deep": Network(
            others.WideAndDeep, (torch.randint(0, 30, (2,)), torch.randint(0, 40, (2,)), torch.randn(2, 4))
        ),
        "cross_network": Network(others.CrossNetwork, (torch.randn(2, 12),)),
        "siamese": Network(others.Siamese, (image(16, 1), image(16, 1))),
        "multi_output": Network(others.MultiOutput, picture),
        "group_norm": Network(others.group_norm, picture),
        "weight_standardised": Network(others.weight_standardised, picture),
        "point_net": Network(others.PointNet, (torch.randn(2, 3, 20),)),
        "graph_net": Network(others.GraphNet, (torch.randn(2, 7, 6), torch.rand(2, 7, 7))),
        "radiance_field": Network(others.RadianceField, (torch.randn(2, 3),)),
        "spatial_transformer": Network(others.SpatialTransformer, (image(16, 1),)),
        "experts": Network(others.Experts, (torch.randn(2, 10),)),
        "film": Network(others.Film, (image(16), torch.randn(2, 4))),
        "maxout": Network(others.Maxout, (torch.randn(2, 12),)),
        "actor_critic": Network(others.ActorCritic, (torch.rand(2, 16, 16, 3) * 255,)),
        "mlp": Network(others.mlp, (torch.randn(2, 20),)),
    }


def settle(model: nn.Module, inputs: tuple[Tensor, ...], *, passes: int = 8) -> nn.Module:
    """Make the random network one whose outputs depend on its inputs, then switch to inference.

    Weights keep the variance of what they read (He et al. 2015), normalisations get scales and shifts that differ per
    channel, and running statistics are those of the data. With the defaults the signal dies out on the way and the
    output is that of the biases: any two networks with the same last layer would look equal.
    """
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if module in norms and isinstance(weight, nn.Parameter):
            nn.init.uniform_(weight, 0.5, 1.5)
            if isinstance(bias, nn.Parameter):
                nn.init.normal_(bias, std=0.2)
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    momenta = {module: module.momentum for module in norms if hasattr(module, "momentum")}
    for module in momenta:
        module.momentum = None  # the plain mean over all passes
    model.train()
    with torch.no_grad():
        for _ in range(passes):
            model(*(torch.randn_like(x) if x.is_floating_point() else x for x in inputs))
    for module, momentum in momenta.items():
        module.momentum = momentum
    return model.eval()


def export(name: str, network: Network, exporter: str) -> int:
    """Write ``torch_<exporter>_<name>.onnx`` and return its bytes."""
    torch.manual_seed(sum(name.encode()))
    model = settle(network.build(), network.inputs)
    path = FOLDER / f"torch_{exporter}_{name}.onnx"
    names = [f"input_{number}" for number in range(len(network.inputs))]
    free = [x.shape[0] == 2 for x in network.inputs]  # masks without a batch axis have another length
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} if moves else {} for moves in free) if network.free else None
            program = torch.onnx.export(
                model,
                network.inputs,
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=network.opset,
                optimize=not network.raw,
                verbose=False,
            )
            assert program is not None
            proto = program.model_proto
        else:
            axes = {name: {0: "batch"} for name, moves in zip(names, free, strict=True) if moves}
            torch.onnx.export(
                model,
                network.inputs,
                str(path),
                dynamo=False,
                input_names=names,
                dynamic_axes=axes if network.free else None,
                opset_version=network.opset,
                do_constant_folding=not network.raw,
                training=torch.onnx.TrainingMode.PRESERVE if network.raw else torch.onnx.TrainingMode.EVAL,
            )
            proto = onnx.load(path)
    forget_the_machine(proto.graph)
    path.write_bytes(proto.SerializeToString())
    size = path.stat().st_size
    assert size <= LIMIT, f"{path.name} has {size} bytes"
    return size


def forget_the_machine(graph: onnx.GraphProto) -> None:
    """Drop what exporters note about where the code stood: stack traces and paths."""
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def main(wanted: list[str]) -> int:
    """Export every network whose file name contains one of the given parts; all without any."""
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # TorchScript has no symbol for the fused attention kernel
    failures = 0
    for name, network in networks().items():
        for exporter in network.exporters:
            title = f"torch_{exporter}_{name}"
            if wanted and not any(part in title for part in wanted):
                continue
            try:
                print(f"{title}: {export(name, network, exporter)} bytes", flush=True)
            except Exception as error:  # one exporter's refusal must not stop the others
                failures += 1
                print(f"{title}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
