"""Tests stand where what they test stands: a folder for each room, and in it a file for each source file."""

import re
from pathlib import Path

import pytest

from tests.conftest import evenly

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "onnxadmm"

#: Folders that hold tools of the tests, or what is brought against the whole package, and not a room of it.
TOOLS = {"graphs", "hostile", "samples_text", "zoo"}

#: Files of tests without a source file of their name, and what they test instead.
NO_COUNTERPART = {
    "cluster/test_joining": "what the command line says where a cluster cannot be joined, or used",
    "cluster/test_sweeps": "sweeps and searches over machines, elsewhere.py among them",
    "calibrate/test_zoo": "the whole room, on exported networks",
    "run/test_branches": "whole runs in which branches go altogether",
    "run/test_exports": "whole runs on files that exporters wrote",
    "run/test_features": "whole runs with columns that are units of their own",
    "run/test_kinds_of_models": "whole runs on every kind of head, label and held input",
    "test_architecture": "docs/architecture.md and docs/extending.md: they are true, and what they say works",
    "test_bad_inputs": "every verb, on files that no verb may accept",
    "test_custom_operators": "every verb, on models with operators of a library",
    "test_imports": "the source of the whole package",
    "test_layout": "these folders",
    "test_option_names": "error messages of the whole package",
    "test_readme": "the README and the pages beside it",
    "test_release": "pyproject.toml and .github/workflows: what is built, and where it is tried",
    "test_samples": "samples/",
    "test_cookbook": "docs/cookbook and docs/tutorial.md: their code runs",
    "test_notebooks": "samples/notebooks",
    "test_site": "mkdocs.yml and docs/: every option, every public name and every page is on the site",
    "test_zoo": "the whole rewriter, on exported networks",
    "plan/test_spending": "how much of a budget admm/selection.py spends on exported networks",
    "graph/test_memory": "what loading and saving a large file takes in memory",
    "graph/test_refusals": "what loading refuses, whichever file of the room finds it",
    "rewrite/test_all_operators": "laws of the whole room, on networks of all operators",
    "rewrite/test_equivalence": "laws of the whole room, on random convolutional networks",
    "rewrite/test_functions": "model-local functions, on their way through graph/, rules/ and this room",
    "rewrite/test_stream_width": "laws of the whole room, on decoders in every form of their norms",
    "rewrite/test_planted_bugs": "the laws themselves: wrong rules break them",
    "test_hostile_names": "every output of the command line, on names that a terminal or a browser would act upon",
    "test_reprs": "what the public objects of all rooms look like in a notebook",
    "test_start": "how fast the package and its commands start",
    "rules/test_caches": "rules of attention.py and microsoft.py that keep a cache",
    "train/gradients/test_forms": "gradients of every operator, in the forms they come in",
    "rules/test_faults": "the samples of all operators: wrong rules show in them",
    "rules/test_integer_proof": "proofs of quantised networks on a processor that graph/saturating.py imitates",
    "rules/test_made_up": "the public methods of visit.py and edit.py, by rules of made-up operators",
    "rules/test_surface": "the public methods of visit.py and edit.py, and that rules need no others",
    "rules/test_summing": "rules of all files that end in a sum over an activation",
    "rules/test_variants": "rules of all files, beyond the samples of their operators",
    "run/test_metric": "whole runs that another metric decides",
    "run/test_norm": "whole runs that put normalisations back",
    "run/test_calibrated": "whole runs of --method calibrated",
    "run/test_resume": "whole runs that go on",
    "train/test_activation_gates": "gates on activations, on their way through rewrite/, admm/ and this room",
    "train/test_random_networks": "the whole way from a model to its gradients, on random networks",
    "train/test_norm_gates": "gates in front of norms, on their way through rewrite/, admm/ and this room",
    "train/test_refusals": "what training refuses, whichever file of the room finds it",
    "train/test_zoo_training": "the whole way from a model to its gradients, on exported networks",
    "train/lowering/test_layers": "lowered layers of all files, side by side with the operator itself",
    "train/lowering/test_edges": "forms in which runtimes or engines differ, side by side with the operator",
    "train/lowering/test_table": "every lowering in the table of operators",
    "train/backward/test_operator_gradients": "every operator's gradient, as docs/operators.md promises it",
}


def files_of_tests() -> dict[str, Path]:
    """Every file of tests by its path below ``tests/``, without the suffix."""
    found = {path.relative_to(TESTS).with_suffix("").as_posix(): path for path in sorted(TESTS.rglob("test_*.py"))}
    assert len(found) > 60
    return found


def counterpart(name: str) -> bool:
    """Tell whether a file of tests is named after a source file, or a room, at the same place."""
    folder, _, stem = name.rpartition("/")
    source = PACKAGE / folder / stem.removeprefix("test_")
    return source.with_suffix(".py").exists() or (source / "__init__.py").exists()


@pytest.mark.parametrize("name", files_of_tests())
def test_a_file_of_tests_is_named_after_its_source_or_says_what_it_tests(name: str) -> None:
    if name.split("/")[0] not in TOOLS:
        assert counterpart(name) != (name in NO_COUNTERPART)


def test_tests_that_train_are_left_out_in_one_way_only() -> None:
    mark = re.compile(r"skipif\(\s*not (TRAINS|(\w+\.)?available\()")
    marking = {path.name for path in TESTS.rglob("*.py") if mark.search(path.read_text(encoding="utf-8"))}
    assert marking == {"shared.py"}


@pytest.mark.parametrize(("count", "chosen"), [(2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2]), (9, [0, 3, 6])])
def test_of_many_cases_some_are_chosen_evenly(count: int, chosen: list[int]) -> None:
    assert evenly(range(count), 3) == chosen


def test_the_table_names_files_that_exist() -> None:
    assert set(NO_COUNTERPART) <= set(files_of_tests())


def test_a_folder_of_tests_is_a_room_or_a_tool() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("__init__.py")}
    others = {folder.as_posix() for folder in folders if folder.parts and folder.parts[0] not in TOOLS}
    assert {folder for folder in others if not (PACKAGE / folder).is_dir()} == set()


@pytest.mark.parametrize(
    ("name", "stands"), [("graph/test_model", True), ("test_cli", True), ("graph/test_cli", False)]
)
def test_a_file_without_a_source_is_noticed(name: str, stands: bool) -> None:
    assert counterpart(name) == stands
