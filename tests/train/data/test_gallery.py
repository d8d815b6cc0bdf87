"""The same pictures in folders, lists, tar, Parquet and Python objects are the same data; damaged ones are counted."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxadmm as oa
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import to_proto
from onnxadmm.run import ground
from onnxadmm.train.data.batches import ArrayDataset, Batch, hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.data.gallery import Damage, Pictures, survey
from onnxadmm.train.data.images import Transform
from onnxadmm.train.data.pictures import Framing
from onnxadmm.train.data.shelves import Names
from onnxadmm.train.losses import Loss
from onnxadmm.train.prepare.signature import signature_of
from tests.shared import needs_training
from tests.train.data.forms import CLASSES, DRAWN, KINDS, MADE, NAMES, digest, epoch, loaded, number_of, source_of
from tests.train.data.test_fit import image_model

_PLAIN = Transform(None, None, np.dtype(np.float32))


@pytest.mark.parametrize("limit", [0, 1 << 30])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pictures_are_the_same_data_in_whatever_they_lie(
    kind: str, limit: int, tmp_path: Path, reference: Path
) -> None:
    for augment in ("", "rrc24,flip", "crop2,flip"):
        options: dict[str, Any] = {"memory_limit": limit, "augment": augment}
        first, other = loaded(reference, **options), loaded(source_of(kind, tmp_path), **options)
        assert digest(first) == digest(other)
        for one, two in zip(epoch(first, augment=True), epoch(other, augment=True), strict=True):
            assert np.array_equal(one[0], two[0])
            assert np.array_equal(one[1], two[1])


NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[batch, 3, 24, 24] image) => (float[batch, 3] logits)
<float[8, 3, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[8] b2, float[8, 3] w3>
{
    h1 = Conv <strides = [2, 2]> (image, w1, b1)
    r1 = Relu (h1)
    h2 = Conv <strides = [2, 2]> (r1, w2, b2)
    r2 = Relu (h2)
    m = GlobalAveragePool (r2)
    f = Flatten (m)
    logits = MatMul (f, w3)
}
"""


@needs_training
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_run_on_the_same_pictures_has_the_same_result(
    kind: str, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "_MUCH_WAITING", 0.0)
    model = with_weights(NETWORK)
    results = [
        oa.compress(
            model,
            data=source,
            budget=oa.Budget(params=0.6),
            recipe=oa.Recipe(epochs=1, retrain_epochs=1, batch_size=8, workers=1),
            preprocessing=oa.Preprocessing(resize=28, augment="rrc24,flip"),
            expect_accuracy=0,
            bench=False,
        )
        for source in (reference, source_of(kind, tmp_path))
    ]
    for words in ("centre-cropped to 24x24", "decoded when a batch needs them", "seconds for images to be read"):
        assert any(words in note for note in results[0].report.simplified), words
    one, two = (weights_of(result.model) for result in results)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def with_weights(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    draws = np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        array = draws.standard_normal(shape).astype(np.float32) / 3
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {value.name: onnx.numpy_helper.to_array(value) for value in to_proto(model).graph.initializer}


def test_labels_belong_to_their_pictures(reference: Path) -> None:
    by_bytes = {p.encoded: number_of(p) for p in DRAWN}
    for limit in (0, 1 << 30):
        data = loaded(reference, memory_limit=limit)
        expected = {}
        for content, label in by_bytes.items():
            image = loaded([{"image": content, "label": label}] * 2, memory_limit=limit)
            expected[next(iter(image.batches(1))).inputs["image"].tobytes()] = label
        for batch in data.batches(1):
            assert batch.labels is not None
            assert expected[batch.inputs["image"].tobytes()] == batch.labels[0]


def test_what_is_decoded_now_equals_what_was_decoded_before(reference: Path) -> None:
    ahead, now = (loaded(reference, memory_limit=limit) for limit in (1 << 30, 0))
    for one, two in zip(epoch(ahead), epoch(now), strict=True):
        assert np.array_equal(one[0], two[0])


def test_another_picture_makes_other_data(reference: Path, tmp_path: Path) -> None:
    for limit in (0, 1 << 30):
        MADE.write_folder(DRAWN, tmp_path / "x")
        before = digest(loaded(tmp_path / "x", memory_limit=limit))
        path = tmp_path / "x" / MADE.CLASSES[0] / DRAWN[0].name
        path.write_bytes(next(MADE.pictures(classes=1, each=1, first=99)).encoded)
        assert digest(loaded(tmp_path / "x", memory_limit=limit)) != before


def test_batches_before_the_first_are_drawn_and_not_read(reference: Path) -> None:
    data = loaded(reference, memory_limit=0, augment="rrc24,flip")
    whole = list(epoch(data, augment=True))
    column = data.inputs["image"]
    asked: list[int] = []
    read = type(column).read
    type(column).read = lambda self, chosen, boxes=None: asked.extend(chosen) or read(self, chosen, boxes)  # type: ignore
    try:
        rest = list(epoch(data, augment=True, first=3))
    finally:
        type(column).read = read  # type: ignore
    assert len(asked) == len(data) - 24
    for one, two in zip(whole[3:], rest, strict=True):
        assert np.array_equal(one[0], two[0])


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_what_is_held_out_stays_so_when_files_are_added(limit: int, tmp_path: Path) -> None:
    def held(count: int) -> set[bytes]:
        drawn = list(MADE.pictures(classes=CLASSES, each=count))
        MADE.write_folder(drawn, tmp_path / str(count))
        whole = loaded(tmp_path / str(count), memory_limit=limit)
        _, part = hold_out(whole, share=0.2)
        assert whole.contents is not None
        return {whole.contents[place].tobytes() for place in part.order}

    few, more = held(10), held(20)
    assert few < more
    assert 0.05 * 60 < len(more) < 0.4 * 60


def test_copies_of_a_picture_are_in_one_part(tmp_path: Path) -> None:
    MADE.write_folder(DRAWN, tmp_path)
    for picture in DRAWN:
        (tmp_path / MADE.CLASSES[picture.label] / f"copy-{picture.name}").write_bytes(picture.encoded)
    rest, held = hold_out(loaded(tmp_path, memory_limit=0), share=0.3)
    assert rest.contents is not None
    assert not {rest.contents[p].tobytes() for p in rest.order} & {rest.contents[p].tobytes() for p in held.order}


def test_more_samples_halve_what_is_held_out_and_move_nothing_into_it() -> None:
    contents = np.random.default_rng(0).integers(2**64, size=(4000, 2), dtype=np.uint64)

    def held(count: int, at_most: int) -> set[int]:
        x = np.zeros((count, 1), np.float32)
        data = ArrayDataset({"x": x}, None, {}, {}, np.arange(count), contents=contents[:count])
        return set(hold_out(data, at_most=at_most)[1].order.tolist())

    assert len(held(4000, 4000)) == pytest.approx(400, rel=0.15)
    assert held(4000, 250) < held(4000, 4000)
    assert len(held(4000, 250)) == pytest.approx(200, rel=0.2)
    assert held(2000, 250) == {place for place in held(4000, 4000) if place < 2000}


def damaged(folder: Path, count: int) -> Path:
    """Class folders in which some pictures cannot be decoded."""
    MADE.write_folder(DRAWN, folder)
    for picture in DRAWN[:count]:
        path = folder / MADE.CLASSES[picture.label] / picture.name
        path.write_bytes(path.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_damaged_pictures_are_left_out_by_name_up_to_a_share(limit: int, tmp_path: Path) -> None:
    source = damaged(tmp_path, 2)
    with pytest.raises(DataError, match=rf"{DRAWN[0].name} .*--max-bad"):
        loaded(source, memory_limit=limit)
    with pytest.raises(DataError, match=r"2 of 42: .*--max-bad"):
        loaded(source, memory_limit=limit, max_bad=0.03)
    data = loaded(source, memory_limit=limit, max_bad=0.05)
    assert len(data) == len(DRAWN) - 2
    assert sum(batch.count for batch in data.batches(8)) == len(DRAWN) - 2
    (said,) = [note for note in data.notes if "were left out" in note]
    assert said.startswith("2 of 42 images were left out")
    assert DRAWN[0].name in said
    assert DRAWN[1].name in said


def test_what_is_no_picture_is_said_so(tmp_path: Path) -> None:
    MADE.write_folder(DRAWN, tmp_path)
    path = tmp_path / NAMES[0] / "page.jpg"
    path.write_text("<html>404</html>")
    (tmp_path / NAMES[0] / "notes.txt").write_text("about")
    with pytest.raises(DataError, match=r"page\.jpg \(it is no picture\)"):
        loaded(tmp_path)
    notes = loaded(tmp_path, max_bad=0.1).notes
    assert any("page.jpg (it is no picture)" in note for note in notes)
    assert any("1 files are no images by their name" in note and "notes.txt" in note for note in notes)


def test_damage_that_shows_when_a_batch_is_made_is_replaced_or_left_out(tmp_path: Path) -> None:
    MADE.write_folder(DRAWN, tmp_path)
    data = loaded(tmp_path, memory_limit=0, max_bad=0.1)
    for picture in DRAWN[:2]:
        (tmp_path / MADE.CLASSES[picture.label] / picture.name).unlink()
    left = list(data.batches(8))
    assert sum(batch.count for batch in left) == len(DRAWN) - 2
    full = list(data.batches(8, drop_last=True))
    assert all(len(batch.inputs["image"]) == batch.count == 8 for batch in full)
    for batch in (*left, *full):
        assert whole(batch)
    assert data.damage.startswith("2 of 42 images were left out")
    for picture in DRAWN[2:8]:
        (tmp_path / MADE.CLASSES[picture.label] / picture.name).unlink()
    with pytest.raises(DataError, match="--max-bad"):
        list(data.batches(8))


def whole(batch: Batch) -> bool:
    """Whether every picture of a batch has something on it, and a label of its own."""
    assert batch.labels is not None
    assert batch.indices is not None
    images = batch.inputs["image"]
    return len(images) == len(batch.labels) == len(batch.indices) and bool((images.std(axis=(1, 2, 3)) > 0.01).all())


def test_sizes_are_read_from_the_model_and_told(reference: Path) -> None:
    data = loaded(reference, size=24, resize=28)
    assert data.sample_shapes["image"] == (3, 24, 24)
    assert any("shorter side to 28" in note and "centre-cropped to 24x24" in note for note in data.notes)
    for words in ("grey", "CMYK", "alpha", "EXIF"):
        assert any(words in note for note in data.notes), words
    open_model = signature_of(image_model(3, "H", "W", classes=CLASSES))
    with pytest.raises(DataError, match="--crop"):
        load_data(reference, signature=open_model, loss=Loss())
    opened = load_data(reference, signature=open_model, loss=Loss(), crop=20)
    assert opened.sample_shapes["image"] == (3, 20, 20)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 20}, "--crop: expected 24x24"),
        ({"resize": 20}, "--resize: expected at least 24"),
        ({"max_bad": 1.0}, "--max-bad"),
        ({"augment": "rrc20"}, "rrc20.*write rrc24"),
        ({"augment": "rrc"}, "rrcN"),
    ],
)
def test_sizes_that_do_not_fit_the_model_are_refused(reference: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        loaded(reference, **options)


def test_parts_of_pictures_in_memory_are_drawn_too() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 24, 24, 3), np.uint8)
    data = loaded((images, np.zeros(10, np.int64)), augment="rrc24")
    plain, changed = (next(iter(data.batches(10, augment=augment))).inputs["image"] for augment in (False, True))
    assert plain.shape == changed.shape
    assert (np.abs(plain - changed).mean(axis=(1, 2, 3)) > 0.01).all()
    with pytest.raises(OptionError, match="in bytes"):
        loaded((images.astype(np.float32), np.zeros(10, np.int64)), augment="rrc24")


class Endless:
    """So many pictures, of which none lies in memory."""

    def __init__(self, count: int) -> None:
        self.names = Names(f"n{place % 1000:08}/{place:08}.jpg" for place in range(count))
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PPM")
        self._head, self._body = file.getvalue()[:-192], file.getvalue()[-192:]

    def read(self, place: int) -> bytes:
        return self._head + place.to_bytes(8, "big") + self._body[8:]


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_memory_grows_by_what_an_index_takes_and_no_more(count: int) -> None:
    framing = Framing(size=(64, 64))
    tracemalloc.start()
    try:
        shelf = Endless(count)
        damage = Damage("made", count, 0)
        pictures = Pictures(shelf, framing, survey(shelf, framing, damage), damage)
        data = ArrayDataset({"x": pictures}, None, {"x": _PLAIN}, {}, pictures.order)
        for number, _ in enumerate(data.batches(32, shuffle=True)):
            if number == 20:
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6e6 + 150 * count  # decoded they would take 12,288 bytes each
