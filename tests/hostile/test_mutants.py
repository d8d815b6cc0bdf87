"""Mutated models end in a result, a lock or one sentence."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from onnxadmm.errors import ModelFileError, OptionError
from onnxadmm.graph.boundary import analysing
from onnxadmm.graph.model import load
from onnxadmm.rules import analyse
from onnxadmm.rules.analyse import DOES_NOT_FIT
from onnxadmm.surgery import find_groups
from tests.hostile.mutations import MUTATIONS, mutate
from tests.hostile.outcomes import Outcome, judge, run_mutants
from tests.hostile.seeds import seeds


@pytest.mark.slow
def test_no_mutant_ends_in_anything_but_a_result_a_lock_or_a_sentence(tmp_path: Path, mutants: int) -> None:
    tally = run_mutants(mutants, seed=0, folder=tmp_path)
    assert not tally.defects, "\n\n".join(f"{title}\n{words}" for title, words in tally.defects.items())
    assert sum(tally.counts.values()) == mutants
    # Mutations that only ever break a file at the door, or never break one, would test nothing.
    if mutants >= 1000:
        assert all(tally.counts[kind] > mutants / 20 for kind in ("works", "locked", "refused")), tally.counts


def test_a_few_mutants_end_in_a_result_a_lock_or_a_sentence(tmp_path: Path) -> None:
    assert not run_mutants(6, seed=1, folder=tmp_path).defects


def test_every_kind_of_mutation_changes_some_model() -> None:
    changed: set[str] = set()
    for number in range(1000):
        content = seeds()[number % len(seeds())][1]
        mutant, kinds = mutate(content, number)
        if "+" not in kinds and onnx.ModelProto.FromString(content) != onnx.ModelProto.FromString(mutant):
            changed.add(kinds)
    assert changed == set(MUTATIONS)


def test_a_number_always_makes_the_same_mutant() -> None:
    content = seeds()[0][1]
    assert mutate(content, 7) == mutate(content, 7)
    assert len({mutate(content, number)[0] for number in range(20)}) > 15


def test_a_verb_that_raises_something_else_is_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(seeds()[0][1])

    def broken(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("tests.hostile.outcomes.rank", broken)
    assert judge(path, tmp_path / "out.onnx").kind == "defect"


def test_a_verb_that_does_not_end_is_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(seeds()[0][1])

    def endless(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.hostile.outcomes.rank", endless)
    monkeypatch.setattr("tests.hostile.outcomes.PATIENCE", 0.1)
    outcome = judge(path, tmp_path / "out.onnx")
    assert outcome == Outcome("defect", outcome.words)
    assert outcome.words.startswith("plan: no end")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in seeds()])
def test_no_rule_is_surprised_by_a_good_model(name: str) -> None:
    units = find_groups(onnx.ModelProto.FromString(dict(seeds())[name]))
    assert not [group.reason for group in units.locked if DOES_NOT_FIT in group.reason]


def test_what_is_raised_inside_of_an_analysis_becomes_a_sentence_that_names_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load(onnx.ModelProto.FromString(seeds()[0][1]))

    def broken(*_: object, **__: object) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("onnxadmm.rules.analyse.Visit.unread_operands", broken)
    with pytest.raises(ModelFileError, match=r"found too deep a nesting at the node \w+ \(\w+\); .* --debug") as caught:
        find_groups(model)
    assert isinstance(caught.value.__cause__, RecursionError)


def test_errors_of_this_package_pass_the_boundary_as_they_are() -> None:
    model = load(onnx.ModelProto.FromString(seeds()[0][1]))
    error = OptionError("--x", expected="a", found="b", way_out="c")
    with pytest.raises(OptionError) as caught, analysing(model, "nothing"):
        raise error
    assert caught.value is error


def test_a_rule_whose_operands_do_not_fit_locks_and_says_what_it_met() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17, "com.example": 1]> g (float[N, 4] x) => (float[N, 2] y)'
        "<float[4, 8] W1, float[8, 2] W2> { h = MatMul (x, W1)  z = MatMul (h, W2)  y = Relu (z) }"
    )
    model = onnx.parser.parse_model(text)
    for name, shape in (("W1", (4, 8)), ("W2", (8, 2))):
        size = shape[0] * shape[1]
        model.graph.initializer.append(onnx.helper.make_tensor(name, 1, shape, [float(n) for n in range(size)]))
    del model.graph.value_info[:]
    assert [group.name for group in find_groups(model).groups] == ["W1"]

    def surprised(_: object) -> None:
        raise IndexError("tuple index out of range")

    with pytest.MonkeyPatch.context() as patch:
        real = analyse.find
        patch.setattr(
            analyse,
            "find",
            lambda domain, name: replace(real(domain, name), label=surprised) if name == "Relu" else real(domain, name),
        )
        reasons = [group.reason for group in find_groups(model).locked]
    assert any(
        "Relu (y) has operands or attributes that do not fit it (IndexError: tuple" in reason for reason in reasons
    )
