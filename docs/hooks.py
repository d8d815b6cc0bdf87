"""What the site needs beside ``docs/``: pages and files that stand elsewhere in the repository, and links to them.

Links are written for a reader of the repository. On the site they lead to the same page, or to a copy of the file.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Pages of the site that do not stand in ``docs/``.
OUTSIDE: Final = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("samples/README.md", "samples/custom_operator/README.md", "samples/digits/README.md"),
    "samples/imagenet/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.md")),
)
#: Pages of the root, whose names in capitals would mean something else on a site, or hide the home page.
_RENAMED: Final = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: What a browser shows itself; everything else gets ``.txt`` behind its name, so that it is shown and not saved.
_SHOWN: Final = (".md", ".png", ".svg", ".json", ".txt", ".ipynb", ".npz", ".onnx")
#: The target of a link or picture, in Markdown or HTML.
_LINK: Final = re.compile(r'(\]\(|<img src=")([^)#"\s]+)((?:#[^)"\s]*)?[)"])')


def place(path: str) -> str:
    """Return where a file of the repository stands on the site; both are paths with ``/``."""
    if path in _RENAMED:
        return _RENAMED[path]
    place = path.removeprefix("docs/")
    return place if place.endswith(_SHOWN) else f"{place}.txt"


def linked(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the files of the repository that a page of it links to: the link as written, and the file's path."""
    for _, target, _ in _LINK.findall(text):
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if not re.match(r"[a-z]+:", target) and (ROOT / file).is_file():
            yield target, file


def for_the_site(path: str, text: str) -> str:
    """Return a page of the repository with its links as the site needs them."""
    found = dict(linked(path, text))
    here = posixpath.dirname(place(path))

    def lead(match: re.Match[str]) -> str:
        file = found.get(match[2])
        return match[0] if file is None else f"{match[1]}{posixpath.relpath(place(file), here or '.')}{match[3]}"

    return _LINK.sub(lead, text)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that stand elsewhere, and every file that a page links to."""
    from mkdocs.structure.files import File  # which the environment of the tests has not

    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    pages |= {path: (ROOT / path).read_text(encoding="utf-8") for path in OUTSIDE}
    wanted = {file for path, text in pages.items() for _, file in linked(path, text)} | set(OUTSIDE)
    for path in sorted(wanted):
        if files.get_file_from_path(place(path)) is None:
            files.append(File.generated(config, place(path), content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Change the links of a page."""
    uri = page.file.src_uri
    return for_the_site(next((path for path in OUTSIDE if place(path) == uri), f"docs/{uri}"), markdown)
