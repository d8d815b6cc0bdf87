"""Names that a terminal, a browser or Markdown would act upon, through every output."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

import onnxadmm as oa
from onnxadmm.cli import main
from onnxadmm.console import ConsoleProgress
from onnxadmm.errors import ModelFileError
from onnxadmm.report.markdown import to_markdown
from onnxadmm.report.report import GroupLine
from onnxadmm.report.table import report_view
from tests.conftest import Ran, run_command
from tests.report.samples import sample_report
from tests.report.test_table import rendered

#: A colour, the window's title, a C1 control, a direction and an isolate, no width, markup.
BAD = "\x1b[31m\x1b]0;t\x07\x9b2J\u202ex\u2066\u200b<b>&|`"


def unseen(text: str) -> set[str]:
    """Characters that nobody sees, but for ends of lines."""
    return {mark for mark in text if unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two layers, every name in it and its file's hostile, and a plan for it."""
    place = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    weights = {f"w{number}{BAD}": random.normal(size=(8, 8)).astype(np.float32) for number in (1, 2)}
    first, second = weights
    nodes = [
        helper.make_node("MatMul", [f"in{BAD}", first], [f"a{BAD}"], name=f"n1{BAD}"),
        helper.make_node("Relu", [f"a{BAD}"], [f"b{BAD}"], name=f"n2{BAD}"),
        helper.make_node("MatMul", [f"b{BAD}", second], [f"out{BAD}"], name=f"n3{BAD}"),
    ]
    ends = [helper.make_tensor_value_info(f"{end}{BAD}", TensorProto.FLOAT, [1, 8]) for end in ("in", "out")]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, f"g{BAD}", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (place / name_of("m")).write_bytes(model.SerializeToString())
    ran = run_command("plan", place / name_of("m"), "--ratio", "0.5", "-o", place / "plan.json")
    assert ran.status == 0, ran
    return place


def name_of(stem: str) -> str:
    """A file's name; only a slash may not be in it."""
    return f"{stem}{BAD}.onnx"


def checked(ran: Ran, *, status: int = 0) -> Ran:
    assert ran.status == status, ran
    assert not unseen(ran.stdout + ran.stderr)
    return ran


def test_tables_show_names_spelled_out(folder: Path) -> None:
    ran = checked(run_command("inspect", folder / name_of("m")))
    assert r"\x1b[31m" in ran.stdout
    assert r"\u202e" in ran.stdout


def test_json_stays_exact(folder: Path) -> None:
    ran = checked(run_command("inspect", folder / name_of("m"), "--json"))
    document = json.loads(ran.stdout)
    assert document["model"] == name_of("m")
    assert f"w1{BAD}" in {group["name"] for group in document["groups"]}


def test_drawings_are_well_formed_and_hold_no_unseen_character(folder: Path, tmp_path: Path) -> None:
    svg, html = tmp_path / "groups.svg", tmp_path / "groups.html"
    checked(run_command("inspect", folder / name_of("m"), "--svg", svg, "--html", html))
    for path in (svg, html):
        text = path.read_text(encoding="utf-8")
        assert not unseen(text)
        assert "<b>" not in text
        assert "&lt;b&gt;" in text


def test_every_verb_spells_names_out(folder: Path) -> None:
    model, plan = folder / name_of("m"), folder / "plan.json"
    small, masked = folder / name_of("small"), folder / name_of("masked")
    checked(run_command("mask", model, plan, "-o", masked))
    checked(run_command("shrink", model, plan, "-o", small))
    checked(run_command("verify", model, small, plan))
    checked(run_command("bench", model, small, "--seconds", "0.05", "--threads", "1"))
    onnx.load(small)


def test_errors_spell_names_out(folder: Path, tmp_path: Path) -> None:
    model = folder / name_of("m")
    checked(run_command("inspect", tmp_path / name_of("missing")), status=2)
    checked(run_command("inspect", model, "--ignore", f"x{BAD}"), status=2)
    checked(run_command("inspect", model, f"more{BAD}"), status=2)
    checked(run_command("inspect", model, f"--opt{BAD}"), status=2)
    checked(run_command(f"verb{BAD}"), status=2)
    checked(run_command("report", tmp_path / name_of("missing")), status=2)
    checked(run_command("--debug", "inspect", tmp_path / name_of("missing")), status=2)
    checked(run_command("plan", model, "--params", f"3{BAD}", "-o", tmp_path / "p.json"), status=2)
    data = tmp_path / f"data{BAD}.npz"
    checked(run_command("compress", model, "--data", data, "--params", "0.5", "--out", tmp_path / "out"), status=2)


def test_the_message_of_an_error_spells_names_out_and_its_parts_are_exact(tmp_path: Path) -> None:
    path = tmp_path / name_of("missing")
    with pytest.raises(ModelFileError) as refused:
        oa.load(path)
    assert not unseen(str(refused.value))
    assert refused.value.thing == str(path)


def test_objects_show_themselves_with_names_spelled_out(folder: Path) -> None:
    model = oa.load(folder / name_of("m"))
    for shown in (model, oa.find_groups(model), oa.rank(model, ratio=0.5)):
        assert not unseen(repr(shown))


def test_a_report_spells_names_out() -> None:
    group = GroupLine(f"g{BAD}", (f"n{BAD}",), 4, 4, None)
    report = replace(sample_report(), groups=(group, *sample_report().groups), warnings=(f"About {BAD}.",))
    page = to_markdown(report)
    assert not unseen(page)
    assert not unseen(rendered(report_view(report)))
    assert r"\\x1b\[31m" in page


def test_progress_spells_names_out(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleProgress(Console(width=80)) as progress:
        progress.stage(f"stage{BAD}")
        progress.note(f"note{BAD}")
    said = capsys.readouterr().out
    assert "note" in said
    assert not unseen(said)


def test_a_defect_spells_names_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(BAD)

    monkeypatch.setattr("onnxadmm.surgery.find_groups", fail)
    assert main(["inspect", "model.onnx", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "RuntimeError" in said
    assert not unseen(said)
