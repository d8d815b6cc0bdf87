"""Every verb, as it is used."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import typer

import onnxadmm as oa
from onnxadmm import demo
from onnxadmm.cli import main
from onnxadmm.cli.app import app
from onnxadmm.demo import DemoFiles, require_bar
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.report.reading import read_report
from onnxadmm.run.recipe import Recipe
from tests.conftest import Command, run_command

VERBS = ("inspect", "compress", "sweep", "pick", "plan", "mask", "shrink", "verify", "quantize", "bench", "report")
VERBS += ("doctor", "demo", "estimate")
TRAINING = ("--scale", 1 / 16, "--epochs", 3, "--retrain-epochs", 2, "--batch-size", 64)


def one_document(text: str) -> Any:
    """Parse stdout that holds one JSON document and nothing else."""
    return json.loads(text)


def accuracy_of(model: Path, test: Path) -> float:
    """Accuracy through onnxruntime alone."""
    with np.load(test) as archive:
        images, labels = archive["images"], archive["labels"]
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": (images[:, None] / 16).astype(np.float32)})
    return float((logits.argmax(1) == labels).mean())


@pytest.fixture(scope="module")
def compressed(digits: DemoFiles, tmp_path_factory: pytest.TempPathFactory, quick_latency: None) -> Path:
    """The out folder of a short compression to 30 % of the parameters."""
    out = tmp_path_factory.mktemp("compressed") / "deep" / "out"
    words = ("--test", digits.test, "--params", "0.3", "--out", out, *TRAINING)
    ran = run_command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0, ran
    assert "Verified" in ran.stdout
    assert "Parameters" in ran.stdout
    return out


@pytest.fixture(scope="module")
def planned(digits: DemoFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan without training."""
    path = tmp_path_factory.mktemp("planned") / "plan.json"
    assert run_command("plan", digits.model, "--macs", "0.3", "-o", path).status == 0
    return path


# -- help ----------------------------------------------------------------------------------------------------


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


# -- inspect -------------------------------------------------------------------------------------------------


def test_inspect_lists_groups_and_what_locks(digits: DemoFiles, command: Command) -> None:
    ran = command("inspect", digits.model)
    assert ran.status == 0
    for word in ("conv1_weight", "dense1_weight", "reaches graph output logits", "124,778 parameters"):
        assert word in ran.stdout
    document = one_document(command("inspect", digits.model, "--json").stdout)
    assert document["parameters"] == sum(
        int(np.prod(tensor.dims)) for tensor in onnx.load(digits.model).graph.initializer
    )
    assert [group["units"] for group in document["groups"]] == [32, 64, 96, 128, 10]


def test_inspect_locks_what_is_ignored(digits: DemoFiles, command: Command) -> None:
    document = one_document(command("inspect", digits.model, "--ignore", "conv2*", "--json").stdout)
    locked = {group["name"]: group["locked"] for group in document["groups"] if group["locked"]}
    assert "conv2_weight" in locked
    assert "conv2*" in locked["conv2_weight"]


# -- plan, mask, shrink, verify, bench -----------------------------------------------------------------------


def test_plan_mask_shrink_and_verify_fit_together(
    digits: DemoFiles, planned: Path, tmp_path: Path, command: Command
) -> None:
    masked, small = tmp_path / "masked.onnx", tmp_path / "small.onnx"
    assert command("mask", digits.model, planned, "-o", masked).status == 0
    assert command("shrink", digits.model, planned, "-o", small).status == 0
    original, zeroed, cut = (onnx.load(path) for path in (digits.model, masked, small))
    assert [node.op_type for node in zeroed.graph.node] == [node.op_type for node in original.graph.node]
    assert small.stat().st_size < 0.75 * digits.model.stat().st_size
    onnx.checker.check_model(cut, full_check=True)
    assert accuracy_of(masked, digits.test) == accuracy_of(small, digits.test)
    ran = command("verify", digits.model, small, planned)
    assert ran.status == 0
    assert "equal to the masked original" in ran.stdout


def test_verify_finds_a_tampered_model(digits: DemoFiles, planned: Path, tmp_path: Path, command: Command) -> None:
    small = tmp_path / "small.onnx"
    assert command("shrink", digits.model, planned, "--dense", "-o", small).status == 0
    proto = onnx.load(small)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "conv3_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(proto, small)
    ran = command("verify", digits.model, small, planned)
    assert ran.status == 4
    assert "c3" in ran.stderr
    ran = command("verify", digits.model, small, planned, "--json")
    assert ran.status == 4
    assert one_document(ran.stdout)["passed"] is False


def test_plan_of_a_ratio_takes_that_share_of_every_group(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    ran = command("plan", digits.model, "--ratio", "0.25", "-o", tmp_path / "plan.json", "--json")
    assert ran.status == 0
    assert one_document(ran.stdout) == json.loads((tmp_path / "plan.json").read_text())
    removed = {group["name"]: (len(group["removed"]), group["units"]) for group in one_document(ran.stdout)["groups"]}
    assert removed == {
        "conv1_weight": (8, 32),
        "conv2_weight": (16, 64),
        "conv3_weight": (24, 96),
        "dense1_weight": (32, 128),
    }


@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_same_seed_gives_the_same_plan_byte_for_byte(
    by: str, digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        assert command("plan", digits.model, "--params", "0.3", "--by", by, "--seed", seed, "-o", path).status == 0
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert (first == other) == (by == "magnitude")


def test_a_seed_below_zero_is_an_option_that_is_wrong(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    ran = command("plan", digits.model, "--ratio", "0.5", "--by", "random", "--seed", -1, "-o", tmp_path / "plan.json")
    assert ran.status == 2
    assert "--seed" in ran.stderr
    assert not any(tmp_path.iterdir())


def test_a_name_that_the_file_system_cannot_hold_is_refused(
    digits: DemoFiles, planned: Path, tmp_path: Path, command: Command
) -> None:
    ran = command("plan", digits.model, "--ratio", "0.5", "-o", tmp_path / ("n" * 300))
    assert ran.status == 2
    assert "a file that can be written" in ran.stderr
    assert not any(tmp_path.iterdir())


def test_force_replaces_a_plan_and_a_model(digits: DemoFiles, planned: Path, tmp_path: Path, command: Command) -> None:
    plan, small = tmp_path / "plan.json", tmp_path / "small.onnx"
    plan.write_text("old")
    small.write_text("old")
    assert command("plan", digits.model, "--ratio", "0.5", "-o", plan).status == 2
    assert command("plan", digits.model, "--ratio", "0.5", "-o", plan, "--force").status == 0
    assert command("shrink", digits.model, plan, "-o", small).status == 2
    assert small.read_text() == "old"
    assert command("shrink", digits.model, plan, "-o", small, "--force").status == 0
    onnx.checker.check_model(onnx.load(small))


@pytest.mark.slow
def test_bench_times_models_side_by_side(
    digits: DemoFiles, compressed: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits.model.parent)  # a long path is folded where figures of a busy machine are wide
    words = ("bench", digits.model.name, compressed / "model.onnx", "--seconds", "0.2", "--batch", "16")
    ran = command(*words)
    assert ran.status == 0
    assert "digits.onnx" in ran.stdout
    document = one_document(command(*words, "--json").stdout)
    assert [result["batch"] for result in document["results"]] == [1, 16]


# -- compress and report -------------------------------------------------------------------------------------


def test_compress_leaves_the_files_it_promises(digits: DemoFiles, compressed: Path) -> None:
    names = {path.name for path in compressed.iterdir()}
    assert names == {"model.onnx", "plan.json", "report.json", "report.md", "report.html", "history.jsonl"}
    report = read_report(compressed / "report.json")
    assert report.after.parameters <= 0.3 * report.before.parameters
    assert report.after.file_bytes == (compressed / "model.onnx").stat().st_size
    assert report.after.test is not None
    assert report.after.test.value == pytest.approx(accuracy_of(compressed / "model.onnx", digits.test))
    assert report.options["params"] == "0.3"
    assert report.options["epochs"] == 3
    assert f"--out {shlex.quote(str(compressed))} --params 0.3" in report.command
    assert sum(line.macs_before for line in report.layers) == report.before.macs
    assert sum(line.parameters_after or 0 for line in report.layers) == report.after.parameters
    assert report.profile is not None
    assert all(line.ms_before for line in report.layers)
    assert [group.feeds for group in report.groups][:2] == [("conv2_weight",), ("conv3_weight",)]


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


@pytest.mark.slow
def test_a_run_ends_with_where_its_files_are_and_what_to_do_next(
    digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    words = ("--params", "30%", "--max-ratio", "95%", "--out", out, *TRAINING, "--no-bench", "--quiet")
    ran = command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0
    assert ran.stderr == ""
    assert "ms at batch" not in ran.stdout
    told, _, code = ran.stdout.partition(" Any onnxruntime runs the model:\n\n")
    page, files = told.splitlines()[-2:]
    assert page == f"The report as a page: {out / 'report.html'}"
    assert files == f"In {out}: model.onnx, report.html, report.md, report.json, plan.json, history.jsonl."
    assert len(code.splitlines()) == 3
    given = {"image": np.zeros((2, 1, 8, 8), dtype=np.float32)}
    names: dict[str, Any] = dict(given)
    exec(textwrap.dedent(code), names)
    assert names["outputs"][0].shape == (2, 10)
    report = read_report(out)
    assert report.options["params"] == "30%"
    assert report.options["bench"] is False
    assert report.budgets[0].limit == pytest.approx(0.3 * report.before.parameters)


@pytest.mark.slow
def test_compress_times_as_it_is_told(digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None) -> None:
    words = ("--params", "30%", "--out", tmp_path / "out", *TRAINING, "--bench-batch", 8, "--bench-threads", 1)
    assert command("compress", digits.model, "--data", digits.training, *words).status == 0
    assert [(line.batch, line.threads) for line in read_report(tmp_path / "out").latency] == [(1, 1), (8, 1)]


@pytest.mark.parametrize("option", ["--bench-batch", "--bench-threads"])
def test_a_timing_that_cannot_be_is_refused_before_the_run(
    option: str, digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    words = ("--data", digits.training, "--params", "30%", "--out", tmp_path / "out", option, "0")
    ran = command("compress", digits.model, *words)
    assert ran.status == 2
    assert f"{option}: expected at least 1" in ran.stderr


def test_shares_may_be_percentages(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(4)]
    for path, words in zip(paths, (("30%",), ("0.3",), ("30%", "--max-ratio", "10%"), ("x",)), strict=True):
        status = command("plan", digits.model, "-o", path, "--ratio", *words).status
        assert status == (2 if words == ("x",) else 0)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    first = [len(json.loads(path.read_text())["groups"][0]["removed"]) for path in (paths[0], paths[2])]
    assert first == [9, 3], "of 32 units"


@pytest.mark.slow
def test_compress_prints_nothing_but_json(
    digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    words = ("--params", "0.3", "--out", tmp_path / "out", *TRAINING, "--json")
    ran = command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0
    assert one_document(ran.stdout)["schema"] == "onnxadmm.report/2"
    assert "held-out" in ran.stderr


@pytest.mark.slow
def test_same_seed_gives_the_same_plan_byte_for_byte_when_it_is_trained(
    digits: DemoFiles, compressed: Path, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    data = ("--data", digits.training, "--params", "0.3", *TRAINING)
    plan = (compressed / "plan.json").read_bytes()
    assert command("compress", digits.model, *data, "--out", tmp_path / "again").status == 0
    assert (tmp_path / "again" / "plan.json").read_bytes() == plan
    assert command("compress", digits.model, *data, "--out", tmp_path / "other", "--seed", 1).status == 0
    assert (tmp_path / "other" / "plan.json").read_bytes() != plan


def test_the_plan_of_a_compression_can_be_applied_to_the_original(
    digits: DemoFiles, compressed: Path, tmp_path: Path, command: Command
) -> None:
    small = tmp_path / "small.onnx"
    assert command("shrink", digits.model, compressed / "plan.json", "-o", small).status == 0
    assert command("verify", digits.model, small, compressed / "plan.json").status == 0
    cut, trained = (
        {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
        for path in (small, compressed / "model.onnx")
    )
    assert cut == trained


@pytest.mark.slow
def test_force_replaces_a_result_and_leaves_other_files_alone(
    digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("old")
    (out / "notes.txt").write_text("mine")
    words = ("compress", digits.model, "--data", digits.training, "--params", "0.3", "--out", out, *TRAINING)
    assert command(*words).status == 2
    assert command(*words, "--force").status == 0
    onnx.checker.check_model(onnx.load(out / "model.onnx"))
    assert (out / "notes.txt").read_text() == "mine"


def test_paths_with_brackets_are_printed_as_they_are(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "[bold]plan[1].json"
    ran = command("plan", digits.model, "--ratio", "0.5", "-o", path)
    assert ran.status == 0
    assert "[bold]plan[1].json" in ran.stdout.replace("\n", "")
    ran = command("inspect", tmp_path / "[red]nothing.onnx")
    assert "[red]nothing.onnx" in ran.stderr


# -- doctor and demo -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_doctor_finds_that_training_works(command: Command) -> None:
    ran = command("doctor", "--json")
    assert ran.status == 0, ran
    document = one_document(ran.stdout)
    assert document["ok"] is True
    assert {finding["name"]: finding["status"] for finding in document["findings"]}["training"] == "ok"
    assert "All is well." in command("doctor").stdout


@pytest.mark.slow
def test_demo_runs_from_the_installation_and_is_held_to_its_bar(
    tmp_path: Path, command: Command, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough to keep the budget, too little to learn from, and nothing made up for: the demo must notice.
    monkeypatch.setattr(demo, "_RECIPE", Recipe(epochs=1, retrain_epochs=0, batch_size=64, refit=False))
    monkeypatch.setattr(demo, "_SAMPLES", 64)
    ran = command("demo", "--out", tmp_path / "demo")
    assert ran.status == 1
    assert "Test accuracy" in ran.stdout
    assert "points lost" in ran.stderr
    report = read_report(tmp_path / "demo" / "report.json")
    with pytest.raises(OnnxAdmmError, match="points lost"):
        require_bar(report)


@pytest.mark.slow
def test_demo_meets_its_bar(tmp_path: Path, quick_latency: None) -> None:
    ran = run_command("demo", "--out", tmp_path / "demo")
    assert ran.status == 0, ran
    lines = [line.strip() for line in ran.stdout.splitlines()]
    assert [line.split("  ")[0] for line in lines if line.startswith(("original", "with"))] == [
        "original",
        "with training",
        "without training",
    ]
    report = read_report(tmp_path / "demo" / "report.json")
    assert report.before.parameters >= 5 * report.after.parameters
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert report.before.macs >= 2 * report.after.macs
    assert report.before.test is not None
    assert report.after.test is not None
    assert report.after.test.value >= report.before.test.value - 0.01
    assert run_command("demo", "--out", tmp_path / "demo").status == 2


@pytest.mark.slow
def test_demo_without_the_engine_shows_what_needs_none(
    tmp_path: Path, command: Command, quick_latency: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "unavailable_reason", lambda: "no engine")
    ran = command("demo", "--out", tmp_path / "demo")
    assert ran.status == 0, ran
    assert "Shown without training alone: no engine" in ran.stderr
    assert "with training" not in ran.stdout
    assert "without training" in ran.stdout
    report = read_report(tmp_path / "demo" / "report.json")
    assert report.before.test is not None
    assert report.after.test is not None
    assert report.after.test.value >= report.before.test.value - 0.02
    assert report.before.parameters >= 9.9 * report.after.parameters
    # The bar notices a network that lost more.
    worse = replace(report, after=replace(report.after, test=replace(report.after.test, value=0.9)))
    with pytest.raises(OnnxAdmmError, match="at most 2 points of test accuracy lost without training"):
        require_bar(worse)


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
