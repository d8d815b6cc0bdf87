"""One tiny ONNX-text network per operator; the file's name is the operator's.

Weights are only declared in the text (``float[4,3,3,3] W1`` between the angle brackets, without a value);
``load_sample`` fills them with seeded random numbers, far from zero, and positive where the name starts with
``positive`` (scales and variances); integers of quantised weights take the whole range of 8 bits. Shapes, axes and
pads stand in the text with their values.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

FOLDER = Path(__file__).parent


def sample_names() -> tuple[str, ...]:
    """Names of all samples, which are operator names, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.onnxtxt")))


def load_sample(operator: str, *, seed: int = 0, domain: str = "") -> onnx.ModelProto:
    """The sample of an operator of the default domain or of com.microsoft, with weights.

    Raises:
        FileNotFoundError: there is no sample of this operator.
    """
    folder = FOLDER / "microsoft" if domain else FOLDER
    return parse_sample((folder / f"{operator}.onnxtxt").read_text(encoding="utf-8"), seed=seed)


def microsoft_names() -> tuple[str, ...]:
    """Names of all samples of the domain com.microsoft, in order."""
    return tuple(sorted(path.stem for path in (FOLDER / "microsoft").glob("*.onnxtxt")))


def parse_sample(text: str, *, seed: int = 0) -> onnx.ModelProto:
    """The model of a text, with weights."""
    model = parser.parse_model(text)
    random = np.random.default_rng(seed)
    computed = {name for node in model.graph.node for name in node.output}
    declared = [value for value in model.graph.value_info if value.name not in computed]
    for value in declared:
        shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        array: np.ndarray = random.uniform(0.2, 1.0, shape)
        if not value.name.startswith("positive"):
            array = array * random.choice([-1.0, 1.0], shape)
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype if dtype.itemsize == 1 else np.int8)
            array = random.integers(limits.min, limits.max, shape, endpoint=True)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype), value.name))
        model.graph.value_info.remove(value)
    return model


def samples() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every operator's name and sample."""
    for name in sample_names():
        yield name, load_sample(name)
