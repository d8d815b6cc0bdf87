"""Prepare a checkout for its package page: ``python .ci/absolute_links.py REPOSITORY TAG``, before the build.

The page shows the README alone, so that its links must be whole addresses; and the metadata name where the repository
is. Both are known where a release is made, and nowhere else: nothing of this is committed.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r'(\]\(|<img src=")(?![a-z]+:|#)([^)"\s]+)([)"])')


def with_whole_links(text: str, repository: str, tag: str) -> str:
    """Return Markdown with links to files of the repository as addresses of their pages, pictures as their bytes."""

    def whole(match: re.Match[str]) -> str:
        kind = "raw" if match[1].startswith("<img") else "blob"
        return f"{match[1]}{repository}/{kind}/{tag}/{match[2]}{match[3]}"

    return _LINK.sub(whole, text)


def with_addresses(settings: str, repository: str) -> str:
    """Return ``pyproject.toml`` with the addresses of the project."""
    urls = f'[project.urls]\nRepository = "{repository}"\nIssues = "{repository}/issues"\n'
    urls += f'Changelog = "{repository}/blob/main/CHANGELOG.md"\n'
    before, found, after = settings.partition("[project.scripts]\n")
    assert found
    assert "[project.urls]" not in settings
    return f"{before}{urls}\n{found}{after}"


def main() -> int:
    """Change README.md and pyproject.toml in place."""
    if len(sys.argv) != 3:
        print("expected the address of the repository, and a tag", file=sys.stderr)
        return 2
    repository, tag = sys.argv[1].rstrip("/"), sys.argv[2]
    readme, settings = ROOT / "README.md", ROOT / "pyproject.toml"
    text = with_whole_links(readme.read_text(encoding="utf-8"), repository, tag)
    readme.write_text(text, encoding="utf-8")
    settings.write_text(with_addresses(settings.read_text(encoding="utf-8"), repository), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
