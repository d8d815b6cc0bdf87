import gzip
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from onnxadmm.errors import DataError
from onnxadmm.train.data import sources, storage
from onnxadmm.train.data.pictures import Framing
from onnxadmm.train.data.raw import Reading
from onnxadmm.train.data.sources import read_idx, read_source
from onnxadmm.train.data.storage import is_mapped
from tests.train.data.forms import CLASSES, digest, epoch, loaded


def idx_bytes(array: np.ndarray, *, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_pair(folder: Path, *, count: int = 4, zipped: bool = False) -> str:
    images = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
    labels = np.arange(count, dtype=np.uint8)
    paths = []
    for name, array in (("images", images), ("labels", labels)):
        path = folder / f"{name}.idx"
        data = idx_bytes(array)
        path.write_bytes(gzip.compress(data) if zipped else data)
        paths.append(str(path))
    return ",".join(paths)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_pair_is_read_gzipped_or_not(tmp_path: Path, zipped: bool) -> None:
    raw = read_source(write_pair(tmp_path, zipped=zipped))
    assert raw.inputs["0"].tolist() == np.arange(24).reshape(4, 2, 3).tolist()
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 1, 2, 3]


def test_idx_numbers_are_big_endian(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(idx_bytes(np.array([1, -2, 300], ">i4"), kind=12))
    assert read_idx(path).tolist() == [1, -2, 300]
    assert read_idx(path).dtype == np.int32


def damaged(folder: Path, kind: str) -> str:
    whole = idx_bytes(np.zeros((4, 2, 3), np.uint8))
    content = {
        "cut short": whole[:-1],
        "too long": whole + b"\0",
        "header cut": whole[:6],
        "no idx": b"PK\x03\x04 something else",
        "empty": b"",
        "gzip cut": gzip.compress(whole)[:-9],
        "gzip bad": b"\x1f\x8bnonsense",
        "kind unknown": b"\0\0\x07\x01" + struct.pack(">I", 0),
    }[kind]
    path = folder / "damaged"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "kind", ["cut short", "too long", "header cut", "no idx", "empty", "gzip cut", "gzip bad", "kind unknown"]
)
def test_damaged_idx_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="damaged"):
        read_source(damaged(tmp_path, kind))


@pytest.mark.parametrize("name", ["missing.npz", "missing", "missing,alsomissing", "a,b,c"])
def test_missing_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"missing|3 names"):
        read_source(str(tmp_path / name))


def test_npz_gives_arrays_by_name_and_finds_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, image=np.zeros((3, 4)), y=np.arange(3))
    raw = read_source(path)
    assert set(raw.inputs) == {"image"}
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 1, 2]


class Evil:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_pickled_npz_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([Evil(str(mark))], dtype=object), y=np.zeros(1, np.int64))
    assert pickle.loads(pickle.dumps(1)) == 1
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        read_source(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04cut"])
def test_broken_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz"):
        read_source(path)


def test_npz_with_labels_only_or_with_text_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.zeros(3))
    with pytest.raises(DataError, match="expected arrays named like"):
        read_source(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.array(["one", "two"]), y=np.zeros(2))
    with pytest.raises(DataError, match="expected numbers"):
        read_source(tmp_path / "b.npz")


def write_images(folder: Path, *, size: tuple[int, int] = (5, 4)) -> Path:
    for index, name in enumerate(["cat", "ant", "bee"]):
        (folder / name).mkdir()
        for number in range(2):
            Image.new("RGB", size, (10 * index, number, 200)).save(folder / name / f"{number}.png")
    (folder / ".hidden").mkdir()
    (folder / "cat" / "notes.txt").write_text("no image")
    return folder


def test_folder_of_class_folders_is_read_in_alphabetical_order(tmp_path: Path) -> None:
    raw = read_source(write_images(tmp_path))
    assert raw.classes == ("ant", "bee", "cat")
    assert raw.inputs["0"].shape == (6, 4, 5, 3)
    assert raw.inputs["0"].dtype == np.uint8
    assert raw.inputs["0"][:, 0, 0].tolist() == [
        [10, 0, 200],
        [10, 1, 200],
        [20, 0, 200],
        [20, 1, 200],
        [0, 0, 200],
        [0, 1, 200],
    ]
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_folder_can_be_read_in_grey(tmp_path: Path) -> None:
    assert read_source(write_images(tmp_path), reading=Reading(framing=Framing(grey=True))).inputs["0"].shape == (
        6,
        4,
        5,
        1,
    )


def test_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "bee" / "0.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"bee.0\.png"):
        read_source(tmp_path)


def test_image_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, size=(64, 64))
    path = tmp_path / "ant" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"ant.1\.png"):
        read_source(tmp_path)


def test_image_of_another_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    write_images(tmp_path)
    Image.new("RGB", (7, 4)).save(tmp_path / "cat" / "1.png")
    with pytest.raises(DataError, match=r"cat.1\.png: expected 5x4 pixels.*7x4"):
        read_source(tmp_path)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="1 folders without images"):
        read_source(tmp_path)


class Tensor:
    """Looks like a torch tensor: no ``__array__`` that numpy would like, but detach, cpu and numpy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> np.ndarray:
        return self._array


X, Y = np.arange(20.0, dtype=np.float32).reshape(10, 2), np.arange(10)


def pieces() -> Iterator[tuple[slice, None]]:
    for start in range(0, 10, 4):
        yield slice(start, start + 4), None


@pytest.mark.parametrize("kind", ["tuples", "lists", "mappings", "tensors", "generator"])
def test_iterable_of_batches_is_joined(kind: str) -> None:
    batches: dict[str, object] = {
        "tuples": [(X[part], Y[part]) for part, _ in pieces()],
        "lists": [[X[part], Y[part]] for part, _ in pieces()],
        "mappings": [{"x": X[part], "labels": Y[part]} for part, _ in pieces()],
        "tensors": [(Tensor(X[part]), Tensor(Y[part])) for part, _ in pieces()],
        "generator": ((X[part], Y[part]) for part, _ in pieces()),
    }
    raw = read_source(batches[kind])
    assert np.array_equal(next(iter(raw.inputs.values())), X)
    assert raw.labels is not None
    assert np.array_equal(raw.labels, Y)


def test_iterable_of_batches_without_labels_gives_none() -> None:
    assert read_source([X[:4], X[4:]]).labels is None


def test_loader_that_reuses_its_buffer_is_copied_in_time() -> None:
    def reuse() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        buffer, labels = np.empty((5, 2), np.float32), np.empty(5, np.int64)
        for start in (0, 5):
            buffer[...] = X[start : start + 5]
            labels[...] = Y[start : start + 5]
            yield buffer, labels

    raw = read_source(reuse())
    assert np.array_equal(raw.inputs["0"], X)
    assert raw.labels is not None
    assert np.array_equal(raw.labels, Y)


def test_iterable_beyond_the_memory_limit_goes_to_a_file() -> None:
    rows = np.random.default_rng(0).random((40, 1 << 15), np.float32)  # 5 MiB
    raw = read_source(((row[None], np.array([n])) for n, row in enumerate(rows)), reading=Reading(memory_limit=1 << 20))
    assert isinstance(raw.inputs["0"], np.memmap)
    assert np.array_equal(raw.inputs["0"], rows)
    assert raw.labels is not None
    assert raw.labels.tolist() == list(range(40))


def test_iterable_that_never_ends_is_refused_before_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = ((np.zeros((1, 1 << 18), np.float32), np.zeros(1, np.int64)) for _ in iter(int, 1))
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: SimpleNamespace(free=8 << 20))
    with pytest.raises(DataError, match=r"at most 0\.00586 GiB.*TMPDIR"):
        read_source(endless, reading=Reading(memory_limit=4 << 20))


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [(X, Y), (X,)],
        [{"x": X}, {"z": X}],
        [(X, Y), (X[:, :1], Y)],
        [("text", Y)],
        [(X, ["a", "b"])],
        [(object(), Y)],
    ],
)
def test_iterables_that_make_no_sense_are_refused(batches: list[object]) -> None:
    with pytest.raises(DataError):
        read_source(batches)


@pytest.mark.parametrize("source", [3, None, 2.5])
def test_other_objects_are_refused_by_type(source: object) -> None:
    with pytest.raises(DataError, match=type(source).__name__):
        read_source(source)


def test_labels_beside_an_array_may_be_a_list() -> None:
    raw = read_source((np.zeros((3, 2)), [0, 1, 2]))
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 1, 2]


def test_arrays_in_memory_are_taken_as_they_are() -> None:
    raw = read_source((X, Y))
    assert raw.inputs["0"] is X
    assert raw.labels is Y
    assert read_source(X).labels is None
    named = read_source({"image": X, "labels": Y})
    assert set(named.inputs) == {"image"}


def test_large_arrays_are_mapped_from_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAPPED_FROM", 1000)
    images = np.random.default_rng(0).integers(0, 256, (30, 24, 24, 3), np.uint8)
    labels = np.arange(30) % CLASSES
    np.savez(tmp_path / "plain.npz", x=images, y=labels)
    np.savez_compressed(tmp_path / "packed.npz", x=images, y=labels)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    expected = loaded((images, labels))
    for name, mapped in (("plain.npz", True), ("packed.npz", False), ("x.npy", True)):
        data = loaded(tmp_path / name)
        assert is_mapped(data.inputs["image"]) == mapped  # type: ignore[arg-type]
        assert digest(data) == digest(expected)
        for one, two in zip(epoch(expected), epoch(data), strict=True):
            assert np.array_equal(one[0], two[0])
