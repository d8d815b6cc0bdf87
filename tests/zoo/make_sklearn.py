"""Export scikit-learn pipelines with skl2onnx.

Run from the root of the repository: ``python -m tests.zoo.make_sklearn``.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

FOLDER = Path(__file__).parent


def pipelines() -> dict[str, tuple[BaseEstimator, bool]]:
    """Estimator and whether the target is a class."""
    few = {"max_iter": 5, "random_state": 0}
    return {
        "mlp_classifier": (make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(24, 16), **few)), True),
        "mlp_classifier_tanh": (MLPClassifier(hidden_layer_sizes=(20,), activation="tanh", **few), True),
        "mlp_classifier_binary": (MLPClassifier(hidden_layer_sizes=(16, 12), activation="logistic", **few), True),
        "mlp_regressor": (make_pipeline(MinMaxScaler(), MLPRegressor(hidden_layer_sizes=(24, 12), **few)), False),
        "mlp_regressor_pca": (
            make_pipeline(StandardScaler(), PCA(6), MLPRegressor(hidden_layer_sizes=(16,), **few)),
            False,
        ),
    }


def main() -> int:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 10)).astype(np.float32)
    for name, (estimator, is_class) in pipelines().items():
        classes = 2 if "binary" in name else 4
        target = generator.integers(0, classes, 200) if is_class else features[:, :3] @ generator.normal(size=(3, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(features, target)
        proto = convert_sklearn(estimator, initial_types=[("features", FloatTensorType([None, 10]))])
        path = FOLDER / f"sklearn_{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        print(f"sklearn_{name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
