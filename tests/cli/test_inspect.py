"""``inspect``, as it is used."""

from pathlib import Path

import numpy as np
import onnx

from onnxadmm.demo import DemoFiles
from tests.cli.conftest import one_document
from tests.conftest import Command


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


def test_two_pictures_of_a_network_need_two_files(digits: DemoFiles, command: Command) -> None:
    ran = command("inspect", digits.model, "--svg", "groups.html", "--html", "groups.html")
    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == "Error: --html: expected another file than that of --svg, found groups.html; give two names.\n"
    assert not Path("groups.html").exists()
