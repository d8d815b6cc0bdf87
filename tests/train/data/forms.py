"""A few pictures in every form that data may have, and what is loaded of them."""

import hashlib
import importlib.util
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from onnxadmm.train.data.batches import ArrayDataset, hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from tests.train.data.test_fit import image_model

CLASSES, EACH = 3, 14
KINDS = (
    "folder",
    "csv",
    "txt",
    "tar",
    "packed tar",
    "tar of folders",
    "parquet",
    "dicts",
    "map-style",
    "images",
)


def _made() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "samples" / "imagenet" / "make_pictures.py"
    spec = importlib.util.spec_from_file_location("make_pictures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MADE = _made()
DRAWN = list(MADE.pictures(classes=CLASSES, each=EACH))
NAMES = sorted(MADE.CLASSES[:CLASSES])


def number_of(picture: Any) -> int:
    return NAMES.index(MADE.CLASSES[picture.label])


class MapStyle:
    """Gives samples by number, as a data set of PyTorch's does."""

    def __len__(self) -> int:
        return len(DRAWN)

    def __getitem__(self, place: int) -> tuple[bytes, np.int64]:
        return DRAWN[-1 - place].encoded, np.int64(number_of(DRAWN[-1 - place]))


def source_of(kind: str, folder: Path) -> object:
    """The pictures in one of many forms, in an order of its own."""
    classes = MADE.write_folder(DRAWN, folder / "folder")
    if kind == "folder":
        return classes
    if kind in ("csv", "txt"):
        comma = "," if kind == "csv" else " "
        lines = [f"folder/{MADE.CLASSES[p.label]}/{p.name}{comma}{MADE.CLASSES[p.label]}" for p in DRAWN[::-1]]
        path = folder / f"list.{kind}"
        path.write_text("\n".join(["path,label"] * (kind == "csv") + lines) + "\n")
        return str(path)
    if kind == "tar":
        MADE.write_tar(DRAWN, folder / "tar")
        return folder / "tar"
    if kind == "packed tar":
        MADE.write_tar(DRAWN, folder / "tar")
        with tarfile.open(folder / "all.tar.gz", "w:gz") as whole:
            for shard in sorted((folder / "tar").iterdir()):
                with tarfile.open(shard) as part:
                    for member in part.getmembers():
                        whole.addfile(member, part.extractfile(member))
        return folder / "all.tar.gz"
    if kind == "tar of folders":
        with tarfile.open(folder / "train.tar", "w") as whole:
            whole.add(classes, "train")
        return str(folder / "*.tar")
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="onnxadmm[parquet] reads tables")
        return MADE.write_parquet(DRAWN, folder / "parquet")
    if kind == "dicts":
        return [{"image": p.encoded, "label": number_of(p)} for p in DRAWN]
    if kind == "map-style":
        return MapStyle()
    return [(str(classes / MADE.CLASSES[p.label] / p.name), number_of(p)) for p in DRAWN]


def loaded(source: object, *, size: int = 24, channels: int = 3, **options: Any) -> ArrayDataset:
    model = image_model(channels, size, size, classes=CLASSES)
    return load_data(source, signature=signature_of(model), loss=Loss(), **options)


def digest(data: ArrayDataset) -> str:
    total = hashlib.sha256()
    for part in hold_out(data):
        part.digest(total)
    return total.hexdigest()


def epoch(data: ArrayDataset, **options: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for batch in data.batches(8, shuffle=True, seed=5, **options):
        assert batch.labels is not None
        yield batch.inputs["image"], batch.labels
