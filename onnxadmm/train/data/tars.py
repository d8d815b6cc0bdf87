"""Pictures in tar archives: shards as WebDataset writes them, or class folders that were packed."""

import json
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final

from onnxadmm.errors import DataError
from onnxadmm.train.data.listing import IMAGE_SUFFIXES, Label, Labels, Listing, left_out
from onnxadmm.train.data.names import LABEL_NAMES
from onnxadmm.train.data.shelves import Members, Names, Spool

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LABEL_SUFFIXES: Final = ("cls", "label", "json")
#: Bytes of a member that can hold a label.
_LONGEST_LABEL: Final = 1 << 20
_NAMED: Final = 5


class _Sample:
    """The members of one sample: all that have its name up to the first dot."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.picture: tarfile.TarInfo | None = None
        self.encoded = b""
        self.label: Label = None


def list_tars(paths: Sequence[Path], name: str, *, spool: Path | None) -> Listing:
    """List the pictures of tar archives, and their labels.

    The label of ``KEY.jpg`` stands in ``KEY.cls`` (a number or a name) or in ``KEY.json`` (under ``label``, ``cls`` and
    the like) of the same archive; where there is neither, the folder of the picture is its class. Pictures stay where
    they are, and are read from there; those of packed archives go to a temporary file.

    Args:
        paths: of the archives.
        name: what messages call the data.
        spool: folder of the temporary file; None: the usual one.

    Raises:
        DataError: an archive cannot be read, or there are no pictures in any.
    """
    packed = any(_is_packed(path) for path in paths)
    kept = Spool(spool) if packed else None
    names, labels = Names(), Labels(name)
    which, offsets, sizes = array("q"), array("q"), array("q")
    others: list[str] = []
    count = 0
    for number, path in enumerate(paths):
        for found in _samples_of(path, keeps=packed):
            if found.picture is None:
                others += [f"{path.name}/{found.key}"] if count < _NAMED else []
                count += 1
                continue
            shown = f"{path.name}/{found.picture.name}"
            labels.append(PurePosixPath(found.key).parent.name or None if found.label is None else found.label)
            if kept is not None:
                kept.append(shown, found.encoded)
                continue
            names.append(shown)
            which.append(number)
            offsets.append(found.picture.offset_data)
            sizes.append(found.picture.size)
    shelf = Members(paths, names, which, offsets, sizes) if kept is None else kept
    if not len(shelf.names):
        raise DataError(
            name,
            expected="images in the archives",
            found=f"{count:,} samples without one" if count else "none",
            way_out="pack KEY.jpg and KEY.cls of every sample, or class folders",
        )
    numbers, classes, notes = labels.finished()
    return Listing(shelf, numbers, classes, (*notes, *left_out(others, count)))


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")


def _samples_of(path: Path, *, keeps: bool) -> Iterator[_Sample]:
    """The samples of an archive, in its order; their pictures' bytes only where they are to be kept."""
    try:
        with tarfile.open(path) as archive:
            now: _Sample | None = None
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would grow with every member
                key = _key_of(member.name)
                if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                    continue
                if now is None or now.key != key:
                    if now is not None:
                        yield now
                    now = _Sample(key)
                _add(now, member, archive.extractfile(member), keeps=keeps)
            if now is not None:
                yield now
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            str(path), expected="a tar archive", found=f"an unreadable file ({error})", way_out="write it anew"
        ) from error


def _add(sample: _Sample, member: tarfile.TarInfo, content: IO[bytes] | None, *, keeps: bool) -> None:
    assert content is not None  # it is a file
    suffix = member.name[len(sample.key) + 1 :].lower()
    if PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES and sample.picture is None:
        sample.picture = member
        sample.encoded = content.read() if keeps else b""
    elif suffix in _LABEL_SUFFIXES and member.size <= _LONGEST_LABEL and sample.label is None:
        text = content.read().decode("utf-8", "replace").strip()
        sample.label = _label_in(text, member.name) if suffix == "json" else text


def _label_in(text: str, name: str) -> Label:
    """The label of a sample's JSON; None where it says none."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise DataError(name, expected="JSON", found=str(error), way_out="write the archive anew") from error
    if not isinstance(told, dict):
        return None
    found = next((told[each] for each in (*LABEL_NAMES, "cls", "class") if each in told), None)
    return found if isinstance(found, (str, int, float, list)) else None


def _key_of(name: str) -> str:
    """The name of a member up to the first dot behind its folder."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"
