"""A Keras network for 8x8 digits, trained on ``train.npz`` of the folder and saved as the README's recipe asks."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

with np.load("train.npz") as archive:
    images, labels = archive["x"], archive["labels"]

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
model.fit(images, labels, batch_size=64, epochs=20, verbose=0)
model.export("saved_model")
Path("versions.txt").write_text(f"keras {keras.__version__}, tensorflow {tf.__version__}")
