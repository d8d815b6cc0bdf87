"""A scikit-learn network for 8x8 digits, trained on ``train.npz`` of the folder: what the README exports."""

from pathlib import Path

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

with np.load("train.npz") as archive:
    samples, labels = archive["x"], archive["labels"]

classifier = MLPClassifier((128, 64), max_iter=200, random_state=0).fit(samples, labels)
Path("versions.txt").write_text(f"scikit-learn {sklearn.__version__}")
