"""Where the files of pictures lie: in folders, within larger files, or in a temporary one."""

import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]


class Names:
    """Many names in little memory: their letters, and where each begins."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._letters = bytearray()
        self._ends = array("q")
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a name behind the others."""
        self._letters += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._letters))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> str:
        start = self._ends[place - 1] if place else 0
        return self._letters[start : self._ends[place]].decode("utf-8", "surrogateescape")


class Shelf(Protocol):
    """Files of pictures by their number, which are read when they are needed, from several threads at once."""

    @property
    def names(self) -> Names:
        """What messages call each."""

    def read(self, place: int) -> bytes:
        """Read one of them.

        Raises:
            OSError: it cannot be read.
        """


class Files:
    """Files of a folder.

    Args:
        root: of which the names are paths.
        names: one for each picture.
    """

    def __init__(self, root: Path, names: Names) -> None:
        self._root = root
        self.names = names

    def read(self, place: int) -> bytes:
        """Read a file."""
        path = self._root / self.names[place]
        if not path.is_file():  # a pipe would be waited for
            raise OSError("no ordinary file")
        return path.read_bytes()


class Members:
    """Parts of larger files, such as the members of tar archives.

    Args:
        paths: of the larger files.
        names: one for each picture.
        which: number of the larger file that each lies in, ``[N]``.
        offsets: where each begins, in bytes, ``[N]``.
        sizes: how long each is, in bytes, ``[N]``.
    """

    def __init__(
        self, paths: Sequence[Path], names: Names, which: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]
    ) -> None:
        self._paths = tuple(paths)
        self.names = names
        self._which, self._offsets, self._sizes = which, offsets, sizes

    def read(self, place: int) -> bytes:
        """Read a part."""
        with self._paths[self._which[place]].open("rb", buffering=0) as file:
            file.seek(self._offsets[place])
            found = file.read(self._sizes[place])
        if len(found) != self._sizes[place]:
            raise OSError("the archive ends within it")
        return found


class Spool:
    """Pictures in a temporary file, of what can be read in one order only.

    Args:
        folder: of the file; None: the temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.names = Names()
        self._ends = array("q")
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it goes with this object
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def append(self, name: str, encoded: bytes) -> None:
        """Add a picture behind the others."""
        self.names.append(name)
        self._file.write(encoded)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(encoded))

    def read(self, place: int) -> bytes:
        """Read one of them."""
        start = self._ends[place - 1] if place else 0
        with self._lock:
            self._file.seek(start)
            return self._file.read(self._ends[place] - start)
