"""How a child process ended is said in the same words everywhere."""

import subprocess
import sys

import pytest

from onnxadmm.child_process import command, ending


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "a crash of it (SIGSEGV)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "a kill by the system (SIGKILL), as when memory"),
        ("raise SystemExit('the reason.\\n\\n')", "a failure of it with exit status 1 (the reason)"),
        ("raise SystemExit(7)", "a failure of it with exit status 7"),
        ("", "an early end of it"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_an_end_becomes_words_for_the_middle_of_a_sentence(code: str, words: str) -> None:
    done = subprocess.run(command("-c", code), capture_output=True, check=False)
    said = ending(done.returncode, done.stderr, of="it")
    assert said.startswith(words)
    assert not said.endswith(".")


def test_an_end_names_what_has_no_name() -> None:
    assert ending(-250) == "a crash (signal 250)"
    assert ending(1, "x" * 1000) == f"a failure with exit status 1 ({'x' * 300})"
