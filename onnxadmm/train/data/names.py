"""Names under which data usually stand: in archives, and as files beside each other."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]

#: Names under which labels, and the only input, may stand; upper case counts as lower case.
LABEL_NAMES = ("labels", "label", "y", "targets", "target")
INPUT_NAMES = ("x", "input", "inputs", "images", "data", "features")


def label_name(names: Iterable[str], split: Split) -> str | None:
    """The array that holds the labels, None where none does: a usual name, or numpy's second of two without names."""
    known = _lower(names)
    if known.keys() == {"arr_0", "arr_1"}:
        return known["arr_1"]
    return _first(known, (f"y_{split}", *LABEL_NAMES, *(f"{name}_{split}" for name in LABEL_NAMES), "y_train"))


def input_name(names: Iterable[str], split: Split) -> str | None:
    """The array that holds the only input, None where none has a usual name."""
    known = _lower(names)
    return _first(
        known, (f"x_{split}", *INPUT_NAMES, *(f"{name}_{split}" for name in INPUT_NAMES), "x_train", "arr_0", "0")
    )


def of_split(names: Iterable[str], split: Split) -> list[str]:
    """The arrays of an archive that belong to a part: all but those that the other part has under the same name."""
    names = list(names)
    known = _lower(names)
    other: Split = "test" if split == "train" else "train"
    return [
        name
        for name in names
        if not (name.lower().endswith(f"_{other}") and f"{name.lower().removesuffix(other)}{split}" in known)
    ]


def labels_beside(path: Path) -> Path | None:
    """The file of labels that stands beside one of samples: ``y.npy`` beside ``X.npy``, ``NAME_labels.npy``.

    None where there is none.
    """
    beside = {file.name.lower(): file for file in sorted(path.parent.iterdir()) if file != path}
    stem = path.stem.lower()
    candidates = [f"{stem}{mark}{name}" for name in LABEL_NAMES for mark in ("_", "-")]
    words = stem.replace("-", "_").split("_")
    for place, word in enumerate(words):
        if word in INPUT_NAMES:
            for name in LABEL_NAMES:
                exchanged = [*words[:place], name, *words[place + 1 :]]
                candidates += ["_".join(exchanged), "-".join(exchanged)]
    return next((beside[f"{name}.npy"] for name in candidates if f"{name}.npy" in beside), None)


def _lower(names: Iterable[str]) -> Mapping[str, str]:
    """Names by what they are in lower case; of two that differ in nothing else the one that is."""
    return {name.lower(): name for name in sorted(names, key=str.islower)}


def _first(known: Mapping[str, str], wanted: Iterable[str]) -> str | None:
    return next((known[name] for name in wanted if name in known), None)
