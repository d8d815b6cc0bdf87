"""The command as a whole: help, completion, interruption, and how it is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import onnxadmm as oa
from onnxadmm.cli import main
from onnxadmm.cli.app import app
from onnxadmm.demo import DemoFiles
from tests.conftest import Command

VERBS = ("inspect", "compress", "sweep", "pick", "plan", "mask", "shrink", "verify", "quantize", "bench", "report")
VERBS += ("doctor", "demo", "estimate")


def test_help_names_every_verb(command: Command) -> None:
    ran = command("--help")
    assert ran.status == 0
    for verb in VERBS:
        assert verb in ran.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, command: Command) -> None:
    ran = command(verb, "--help")
    assert ran.status == 0
    assert "Usage" in ran.stdout


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_help_cuts_nothing_at_any_width(
    verb: str, width: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    group = typer.main.get_command(app)
    text = command(verb, "-h").stdout
    assert "..." not in text.partition("\n\n")[2]  # what follows the usage
    assert "…" not in text
    for field in group.commands[verb].params:  # type: ignore[attr-defined]  # typer has no public type for it
        for name in (*field.opts, *field.secondary_opts):
            assert name in text or not name.startswith("-"), name
    summary = " ".join(command("--help").stdout.split())
    assert " ".join(str(group.commands[verb].short_help).split()) in summary  # type: ignore[attr-defined]


def test_help_is_short_for_h_and_the_version_is_told(command: Command) -> None:
    assert command("-h").stdout == command("--help").stdout
    assert command("--version").stdout == f"onnxadmm {oa.__version__}\n"
    for option in ("--install-completion", "--show-completion"):
        assert option in command("-h").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs_and_options(shell: str) -> None:
    words = {
        "_ONNXADMM_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "onnxadmm compress --retrain-e",
        "COMP_CWORD": "2",
    }
    words |= {"_TYPER_COMPLETE_ARGS": "onnxadmm compress --retrain-e", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "from onnxadmm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **words}
    )
    assert "--retrain-epochs" in done.stdout, done


def test_ctrl_c_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxadmm.surgery.find_groups", interrupt)
    ran = command("inspect", "model.onnx")
    assert ran.status == 130
    assert ran.stderr == "Interrupted.\n"
    assert ran.stdout == ""


def test_paths_with_brackets_are_printed_as_they_are(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "[bold]plan[1].json"
    ran = command("plan", digits.model, "--ratio", "0.5", "-o", path)
    assert ran.status == 0
    assert "[bold]plan[1].json" in ran.stdout.replace("\n", "")
    ran = command("inspect", tmp_path / "[red]nothing.onnx")
    assert "[red]nothing.onnx" in ran.stderr


def test_main_reads_the_words_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["onnxadmm", "--help"])
    assert main() == 0
    assert "compress" in capsys.readouterr().out


def test_help_does_not_wait_for_onnxruntime() -> None:
    code = "import sys; from onnxadmm.cli import main; main(['--help']); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_the_command_line_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxadmm.cli", "inspect", "missing.onnx"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "missing.onnx" in done.stderr
    assert "Traceback" not in done.stderr
