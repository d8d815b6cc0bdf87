"""From a data set in the shape of ImageNet to a smaller network: pictures drawn, a small ResNet trained, compressed.

Run: ``python samples/imagenet/compress_resnet.py [OUT] [--classes N] [--each N]``. Needs the training build of
onnxruntime, no network and no download; about two minutes with the ten classes that are usual here. Pictures come as
tar shards, and the network is measured on class folders of others. Exits with 1 below its bar: half of the
multiply-accumulates, at most 3 points of test accuracy lost against a network that is right in 80 of 100, proven at
80 dB.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from make_pictures import CLASSES, pictures, write_folder, write_tar

import onnxadmm as oa
from onnxadmm.admm.schedule import learning_rate_at
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model, from_proto, save
from onnxadmm.train.data.batches import hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.evaluate import evaluate
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from onnxadmm.train.trainer import OrtTrainer

SIDE = 32
RESIZE = 36
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
AUGMENT = "crop4,flip"
BATCH = 32
STEPS = 900
LEARNING_RATE = 3e-3
ACCURACY = 0.8
MACS = 0.5
POINTS_LOST = 3.0
DECIBELS = 80.0

NETWORK = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "onnxadmm samples">
resnet (float[batch, 3, 32, 32] image) => (float[batch, CLASSES] logits)
{
    s0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, stem_weight, stem_bias)
    s1 = Relu (s0)
    s2 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s1)
    a0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s2, a1_weight, a1_bias)
    a1 = Relu (a0)
    a2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a1, a2_weight, a2_bias)
    a3 = Add (a2, s2)
    a4 = Relu (a3)
    b0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (a4, b1_weight, b1_bias)
    b1 = Relu (b0)
    b2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b1, b2_weight, b2_bias)
    b3 = Conv <kernel_shape = [1, 1], strides = [2, 2]> (a4, b3_weight, b3_bias)
    b4 = Add (b2, b3)
    b5 = Relu (b4)
    c0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (b5, c1_weight, c1_bias)
    c1 = Relu (c0)
    p = GlobalAveragePool (c1)
    flat = Flatten (p)
    logits = Gemm <transB = 1> (flat, dense_weight, dense_bias)
}
"""
SHAPES = {
    "stem": (24, 3, 3, 3),
    "a1": (24, 24, 3, 3),
    "a2": (24, 24, 3, 3),
    "b1": (48, 24, 3, 3),
    "b2": (48, 48, 3, 3),
    "b3": (48, 24, 1, 1),
    "c1": (96, 48, 3, 3),
}


def untrained(classes: int) -> onnx.ModelProto:
    """Return a small ResNet with normal weights of variance 2 / fan-in, the ends of its branches smaller."""
    generator = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK.replace("CLASSES", str(classes)))
    for layer, shape in {**SHAPES, "dense": (classes, 96)}.items():
        weight = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        weight *= 0.5 if layer in ("a2", "b2", "dense") else 1.0
        for name, array in ((f"{layer}_weight", weight), (f"{layer}_bias", np.zeros(shape[0]))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def trained(classes: int, shards: Path, cache: Path) -> Model:
    """Train the network on tar shards."""
    model, loss = from_proto(untrained(classes)), Loss()
    data = load_data(
        shards,
        signature=signature_of(model),
        loss=loss,
        mean=MEAN,
        std=STD,
        resize=RESIZE,
        augment=AUGMENT,
        cache=cache,
    )
    training, held_out = hold_out(data)
    with OrtTrainer(model, loss=loss, batch_size=BATCH, weight_decay=0.02) as trainer:
        step, epoch, total = 0, 0, 0.0
        while step < STEPS:
            for batch in training.batches(BATCH, seed=epoch, shuffle=True, augment=True, drop_last=True):
                total += trainer.backward(batch)
                trainer.update(learning_rate_at((step + 0.5) / STEPS, peak=LEARNING_RATE, warm_up=0.1))
                step += 1
                if step == STEPS:
                    break
            epoch += 1
        result = with_constants(model, trainer.weights)
    accuracy = evaluate(result, held_out, loss=loss).accuracy or 0.0
    print(
        f"trained {epoch} epochs on {len(training):,} pictures: mean loss {total / STEPS:.3f}, held-out {accuracy:.3f}"
    )
    return result


def main() -> int:
    """Draw, train, compress; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", default=None)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--each", type=int, default=60, help="pictures of a class to train with")
    asked = parser.parse_args()
    if not 2 <= asked.classes <= len(CLASSES):
        parser.error(f"--classes: from 2 to {len(CLASSES)}")
    out = asked.out or Path(tempfile.mkdtemp(prefix="onnxadmm-imagenet-"))
    shards = write_tar(list(pictures(classes=asked.classes, each=asked.each)), out / "train")
    test = write_folder(list(pictures(classes=asked.classes, each=20, first=100_000)), out / "test")
    save(trained(asked.classes, shards, out / "cache"), out / "resnet.onnx", force=True)
    done = oa.compress(
        out / "resnet.onnx",
        data=shards,
        test=test,
        budget=oa.Budget(macs=MACS),
        out=out / "compressed",
        recipe=oa.Recipe(epochs=20, retrain_epochs=40, batch_size=BATCH, workers=1),
        preprocessing=oa.Preprocessing(mean=MEAN, std=STD, resize=RESIZE, augment=AUGMENT, cache=out / "cache"),
        bench=False,
        force=True,
    )
    return judged(done.report)


def judged(report: oa.Report) -> int:
    """Print what came of it, and return 1 where it misses the bar."""
    before, after, proof = report.before, report.after, report.verification
    if before.test is None or after.test is None or proof is None:
        print("neither measured nor proven")
        return 1
    macs = (after.macs or 0) / max(1, before.macs or 0)
    lost = 100 * (before.test.value - after.test.value)
    print(
        f"{macs:.1%} of the multiply-accumulates, test accuracy {before.test.value:.3f} -> {after.test.value:.3f}, "
        f"proven at {proof.snr_db:.0f} dB"
    )
    met = before.test.value >= ACCURACY and macs <= MACS and lost <= POINTS_LOST + 1e-9 and proof.snr_db >= DECIBELS
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
