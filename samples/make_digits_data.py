"""Export scikit-learn's handwritten digits to the two files in samples/digits.

Run once, in an environment with scikit-learn: ``python samples/make_digits_data.py``. Nothing else in this
repository needs scikit-learn.
"""

import importlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "digits"
TEST_SAMPLES = 500
SEED = 0


def main() -> None:
    """Write training and test data, every class in proportion in both."""
    digits = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)  # [1797, 8, 8], values 0 to 16
    generator = np.random.default_rng(SEED)
    place = np.empty(len(labels))
    for digit in range(10):
        members = generator.permutation(np.flatnonzero(labels == digit))
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    order = np.argsort(place, kind="stable")
    for name, chosen in (("test", order[:TEST_SAMPLES]), ("train", order[TEST_SAMPLES:])):
        shuffled = generator.permutation(chosen)
        np.savez_compressed(FOLDER / f"digits-{name}.npz", images=images[shuffled], labels=labels[shuffled])
        print(f"digits-{name}.npz: {len(shuffled)} images, {np.bincount(labels[shuffled]).tolist()} per class")


if __name__ == "__main__":
    main()
