"""The groups as a page lists them, and the arcs beside."""

import re

from onnxadmm.report.graph_view import GroupBox, anchors, arcs, boxes_of_inspection, boxes_of_report, for_template
from onnxadmm.report.inspection import InspectedGroup, Inspection
from onnxadmm.report.layers import LayerLine
from onnxadmm.report.report import GroupLine
from tests.report.samples import sample_report


def ends(path: str) -> tuple[float, float]:
    """Heights at which a path begins and ends."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", path)]
    return numbers[1], numbers[-1]


def test_a_group_shows_its_units_and_a_locked_one_its_reason() -> None:
    first, *_, last = boxes_of_report(sample_report().groups, sample_report().layers)
    assert (first.kind, first.count, first.share) == ("free", "20 \u2192 5", 0.25)
    assert (last.kind, last.count, last.why) == ("locked", "10", "locked: reaches graph output logits")


def test_a_group_is_tied_by_layers_that_multiply_and_not_by_a_normalisation() -> None:
    def layer(name: str, macs: int) -> LayerLine:
        return LayerLine(name, "Conv", "g", 8, 8, 9, 9, macs, macs, None, None)

    groups = (GroupLine("g", ("a", "norm"), 8, 8, None), GroupLine("h", ("a", "b", "norm"), 8, 8, None))
    boxes = boxes_of_report(groups, (layer("a", 5), layer("b", 5), layer("norm", 0)))
    assert [box.kind for box in boxes] == ["free", "tied"]


def test_bars_of_an_inspection_are_costs_relative_to_the_largest() -> None:
    groups = (
        InspectedGroup("g", 8, 1, ("a", "b", "c", "d"), 0.25, 0.4, None, ("h",), tied=True),
        InspectedGroup("h", 8, 2, ("e",), 0.5, 0.1, None),
        InspectedGroup("k", 4, 1, ("f",), None, None, "no rule for Odd (f)"),
    )
    first, second, third = boxes_of_inspection(Inspection("m", 1, 1, groups))
    assert (first.share, second.share, third.share) == (1.0, 0.25, 0.0)
    assert (first.kind, second.kind, third.kind) == ("tied", "free", "locked")
    assert first.why == "25.00 % of the parameters, 40.00 % of the MACs; written by a, b, c and 1 more"
    assert second.count == "8 units in 2 equal blocks"


def test_an_arc_leads_from_each_group_to_those_it_feeds() -> None:
    names = ("a", "b", "c")
    feeds = {"a": ("c", "elsewhere"), "b": ("b",), "c": ("a",)}
    boxes = [GroupBox(name, "free", "", "", 1.0, feeds[name]) for name in names]
    down, itself, up = map(ends, arcs(boxes))
    assert down[0] < 64 < 128 < down[1]
    assert up[0] > 128 > 64 > up[1]
    assert 64 < itself[0] < itself[1] < 128 or 64 < itself[1] < itself[0] < 128


def test_a_link_to_a_group_leads_to_its_line_whatever_its_name() -> None:
    boxes = [GroupBox('"><script>', "free", "", "", 1.0, ()), GroupBox("", "locked", "", "", 1.0, ())]
    assert anchors(boxes) == {'"><script>': "group-0", "": "group-1"}
    assert [box["anchor"] for box in for_template(boxes)] == ["group-0", "group-1"]
