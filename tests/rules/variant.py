"""A network that shows an operator in some case.

Every network starts with ``h = Conv (x, W1, B1)`` and ends in ``y = Conv (z, W2, B2)``, if not said otherwise.
"""

from dataclasses import dataclass

import onnx
from onnx import helper

from tests.samples_text import parse_sample


@dataclass(frozen=True)
class Variant:
    """A network and the operator it is about."""

    operator: str
    body: str
    weights: str = ""
    channels: int = 4
    read: int = 4
    opset: int = 17
    batch: str = "N"
    image: str = "3,3"
    domain: str = ""

    def model(self) -> onnx.ModelProto:
        """The network, with weights; of an old operator set in the form of its time, weights among the inputs."""
        lines = "\n".join(line.strip() for line in self.body.strip().splitlines())
        weights = f"{self.weights.strip().rstrip(',')}," if self.weights else ""
        version = 11 if self.opset > 22 else 10 if self.opset > 19 else 8 if self.opset > 9 else 4
        found = parse_sample(
            f"""<ir_version: {version}, opset_import: ["" : {self.opset}, "com.microsoft" : 1]>
            variant (float[{self.batch},3,{self.image}] x) => (float[b,2,p,q] y)
            <{weights} float[{self.channels},3,1,1] W1, float[{self.channels}] B1,
            float[2,{self.read},1,1] W2, float[2] B2>
            {{
            h = Conv (x, W1, B1)
            {lines}
            y = Conv (z, W2, B2)
            }}"""
        )
        if self.opset < 9:
            found.ir_version = 3
            for tensor in found.graph.initializer:
                found.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return found
