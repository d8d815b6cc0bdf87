"""``plan``, as it is used."""

import json
from pathlib import Path

import onnx
import pytest

from onnxadmm.demo import DemoFiles
from tests.cli.conftest import one_document
from tests.conftest import Command


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


def test_shares_may_be_percentages(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(4)]
    for path, words in zip(paths, (("30%",), ("0.3",), ("30%", "--max-ratio", "10%"), ("x",)), strict=True):
        status = command("plan", digits.model, "-o", path, "--ratio", *words).status
        assert status == (2 if words == ("x",) else 0)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    first = [len(json.loads(path.read_text())["groups"][0]["removed"]) for path in (paths[0], paths[2])]
    assert first == [9, 3], "of 32 units"


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
