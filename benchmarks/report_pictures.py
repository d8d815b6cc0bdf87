"""Pictures of a report for the pages: ``python -m benchmarks.report_pictures out/demo`` writes them to docs/images/.

They show the page as a browser draws it, on a wide screen and on a narrow dark one. Times are left out: what a picture
shows should not depend on who makes it. It takes a machine with Chromium.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from onnxadmm.report.page import page_of_report
from onnxadmm.report.reading import read_report
from tests.browser import Browser

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
#: Name, width, height of what is shown, whether on a dark screen, and the section that it begins with.
PICTURES = (("report", 1280, 1222, False, None), ("report-narrow", 390, 844, True, "layers"))


def main() -> None:
    """Draw every picture."""
    page = page_of_report(replace(read_report(sys.argv[1]), latency=(), profile=None, stages=()))
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        for name, width, height, dark, section in PICTURES:
            with Browser(width=width, height=height, dark=dark) as browser:
                browser.open(file)
                top = 0 if section is None else browser.run(f"document.getElementById('{section}').offsetTop")
                target = FOLDER / f"{name}.png"
                browser.picture(target, top=top, height=height)
            Image.open(target).convert("RGB").save(target, optimize=True)
            print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
