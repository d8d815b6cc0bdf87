"""Files: complete or not there at all."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onnxadmm.errors import InputError, OutputError
from onnxadmm.report.reading import read_history, read_report
from onnxadmm.report.writer import HistoryWriter, write_report, write_text
from tests.report.samples import iterations, sample_report


def test_a_written_report_reads_back_equal(tmp_path: Path) -> None:
    json_path, markdown_path, page_path = write_report(sample_report(), tmp_path)
    assert replace(read_report(json_path), history=sample_report().history) == sample_report()
    assert markdown_path.read_text(encoding="utf-8").startswith("# ")
    assert page_path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = write_report(sample_report(), tmp_path)
    before = [path.read_bytes() for path in paths]
    write_report(sample_report(), tmp_path, force=True)
    assert [path.read_bytes() for path in paths] == before
    assert before[0].endswith(b"}\n")


@pytest.mark.parametrize("existing", ["report.json", "report.md", "report.html"])
def test_an_existing_report_is_not_overwritten_and_nothing_changes(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        write_report(sample_report(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        write_report(sample_report(), tmp_path / "missing")


def test_a_failure_while_writing_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file/x.json", "n" * 300 + ".json"])
def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="a file that can be written"):
        write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_text_that_is_no_unicode_is_shown_not_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "caf\udce9 é")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9 é"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_files_get_the_rights_any_new_file_gets(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_history_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as history:
        for row in iterations():
            history.append(row)
    assert read_history(path) == iterations()
    assert len(path.read_bytes().splitlines()) == 3


def test_every_line_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as history:
        history.append(iterations()[0])
        assert read_history(path) == iterations()[:1]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    code = (
        "import os, sys\n"
        "from onnxadmm.report.writer import HistoryWriter\n"
        "from tests.report.samples import iterations\n"
        "history = HistoryWriter(sys.argv[1])\n"
        "for row in iterations():\n"
        "    history.append(row)\n"
        "os._exit(9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False, timeout=60)
    assert done.returncode == 9
    assert read_history(path) == iterations()


def test_half_a_line_of_a_power_cut_is_cut_off_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path) as history:
        history.append(iterations()[0])
    with path.open("ab") as file:
        file.write(b'{"stage": "pru')
    with pytest.raises(InputError, match="Unterminated string"):
        read_history(path)
    with HistoryWriter(path) as history:
        history.append(iterations()[1])
    assert read_history(path) == iterations()[:2]


def test_a_history_in_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        HistoryWriter(tmp_path / "missing" / "history.jsonl")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    history = HistoryWriter.__new__(HistoryWriter)
    history.path = Path("/dev/full")
    history._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    try:
        with pytest.raises(OutputError, match="No space left on device"):
            history.append(iterations()[0])
    finally:
        history.close()
