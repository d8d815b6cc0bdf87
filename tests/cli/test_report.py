"""``report``, as it is used."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import one_document
from tests.conftest import Command


def test_report_of_an_earlier_run_is_shown_again(compressed: Path, command: Command) -> None:
    ran = command("report", compressed / "report.json")
    assert ran.status == 0
    assert "Verified" in ran.stdout
    ran = command("report", compressed / "report.json", "--json")
    assert one_document(ran.stdout) == json.loads((compressed / "report.json").read_text())


def test_report_takes_the_folder_of_a_run(compressed: Path, tmp_path: Path, command: Command) -> None:
    assert command("report", compressed).stdout == command("report", compressed / "report.json").stdout
    ran = command("report", tmp_path)
    assert ran.status == 2
    assert "expected a folder with report.json, found none" in ran.stderr
    (tmp_path / "unfinished").mkdir()
    assert "--resume" in command("report", tmp_path).stderr


def test_the_page_of_an_earlier_run_is_made_again_to_the_byte(
    compressed: Path, tmp_path: Path, command: Command
) -> None:
    page = tmp_path / "page.html"
    assert command("report", compressed, "--html", page).status == 0
    assert page.read_bytes() == (compressed / "report.html").read_bytes()
    ran = command("report", compressed, "--html", page)
    assert (ran.status, page.stat().st_size > 0) == (2, True)
    assert "--force" in ran.stderr
    assert command("report", compressed, "--html", page, "--force").status == 0
    for name in ("report.json", "history.jsonl"):
        ran = command("report", compressed, "--html", compressed / name, "--force")
        assert "expected an output that is no input" in ran.stderr


def test_the_page_is_opened_in_a_browser_and_a_missing_one_is_a_sentence(
    compressed: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    page = tmp_path / "page.html"
    assert command("report", compressed / "report.json", "--open").status == 0
    assert command("report", compressed, "--html", page, "--open").status == 0
    assert opened == [(compressed / "report.html").as_uri(), page.as_uri()]
    shutil.copy(compressed / "report.json", tmp_path)
    ran = command("report", tmp_path, "--open")
    assert ran.status == 2
    assert "expected the page of a run, found none; make one with --html" in ran.stderr
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    ran = command("report", compressed, "--open")
    assert ran.status == 2
    assert "expected a browser to open it, found none" in ran.stderr
