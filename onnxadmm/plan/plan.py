"""The plan: which units go and which connections are zero, for one model. It is all that passes to the rewriter."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import PlanError
from onnxadmm.graph.model import Model
from onnxadmm.graph.weights import refuse_special
from onnxadmm.units.units import Group, Units
from onnxadmm.units.vanishing import emptied, may_vanish

SCHEMA = "onnxadmm.plan/1"
#: Elements of the largest weight of whose zeros a plan may tell: a file of some kilobytes could ask for any memory.
LARGEST_ZEROS = 2**31


@dataclass(frozen=True)
class GroupPlan:
    """The units of one group that go, ascending, out of ``units``."""

    name: str
    units: int
    removed: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What goes, for the model with this sha256.

    Attributes:
        sha256: of the model's file.
        groups: every group that could shrink, in the order of the graph.
        inexact: whether operators that mix along the removed axis were pruned through.
        ignored: the patterns of names that had to stay.
        simplified: whether the model was simplified before its units were found.
        zeros: for each weight with pruned connections, bool of its original shape, True where it is zero.
        note: how the plan was made, for people.
        fitted: weights of the result that are no longer the original's, where a calibration has fitted some anew.
        features: whether columns behind a flattening were units of their own.

    Examples:
        ```python
        plan = oa.rank("model.onnx", ratio=0.5)
        for group in plan.groups:
            print(group.name, len(group.removed), "of", group.units)
        text = plan.to_json()  # what plan.json holds
        ```
    """

    sha256: str
    groups: tuple[GroupPlan, ...]
    inexact: bool = False
    ignored: tuple[str, ...] = ()
    simplified: bool = False
    zeros: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    note: str = ""
    fitted: tuple[str, ...] = ()
    features: bool = False

    def __repr__(self) -> str:
        units = sum(group.units for group in self.groups)
        told = [f"{self.removed_count} of {units} units go, from {len(self.groups)} groups"]
        told += [f"{len(self.zeros)} weights with pruned connections"] if self.zeros else []
        told += [repr(self.note)[1:-1]] if self.note else []
        return f"Plan({'; '.join(told)}; for sha256 {self.sha256[:12]})"

    @property
    def removed_count(self) -> int:
        """How many units go."""
        return sum(len(group.removed) for group in self.groups)

    def keep(self, model: Model, units: Units) -> NDArray[np.bool_]:
        """Return which units of a model stay: bool ``[units.count]``.

        Raises:
            PlanError: the plan was made for another model, or its groups are not the model's.
        """
        if self.sha256 != model.sha256:
            raise PlanError(
                "the plan",
                expected=f"one for the model with sha256 {model.sha256[:12]}",
                found=f"one for {self.sha256[:12]}",
                way_out="make a plan for this model with `onnxadmm plan`",
            )
        keep = np.ones(units.count, dtype=np.bool_)
        for planned in self.groups:
            group = units.group(planned.name)
            if group is None or group.count != planned.units or any(not 0 <= u < group.count for u in planned.removed):
                raise PlanError(
                    f"group {planned.name!r} of the plan",
                    expected="a group of the model that may shrink, with its number of units",
                    found="none of that name" if group is None else f"{group.count} units instead of {planned.units}",
                    way_out="make the plan anew with `onnxadmm plan`",
                )
            keep[group.start + np.asarray(planned.removed, dtype=np.int64)] = False
            _refuse_unbalanced(group, keep)
        empty = emptied(units, keep)
        vanishing = may_vanish(model, units) if empty else frozenset()
        for group in empty:
            if group.start not in vanishing:
                raise PlanError(
                    f"group {group.name!r} of the plan",
                    expected="at least one unit that stays, as no sum takes what it ends",
                    found="none",
                    way_out="keep one",
                )
        return keep

    def to_json(self) -> str:
        """Return the plan as JSON text; equal plans give equal bytes."""
        document = {
            "schema": SCHEMA,
            "sha256": self.sha256,
            "note": self.note,
            "inexact": self.inexact,
            "ignored": list(self.ignored),
            "simplified": self.simplified,
            **({"features": True} if self.features else {}),
            "groups": [
                {"name": group.name, "units": group.units, "removed": list(group.removed)} for group in self.groups
            ],
            "zeros": {name: _pack(zeros) for name, zeros in sorted(self.zeros.items())},
            **({"fitted": list(self.fitted)} if self.fitted else {}),
        }
        return json.dumps(document, indent=1) + "\n"

    @staticmethod
    def read(path: str | Path) -> "Plan":
        """Read ``plan.json``.

        Raises:
            PlanError: the file cannot be read, or is not a plan of this version.
        """
        try:
            refuse_special(Path(path))
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else "something else"
            raise PlanError(
                str(path), expected="a readable text file", found=reason, way_out="check the path"
            ) from error
        return Plan.from_json(text, source=str(path))

    @staticmethod
    def from_json(text: str, *, source: str = "the plan") -> "Plan":
        """Read a plan.

        Raises:
            PlanError: it is not JSON, or not a plan of this version.
        """
        try:
            document = json.loads(text)
            schema = document["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise PlanError(
                source, expected="a JSON plan", found=f"text that is none ({error})", way_out="give a plan.json"
            ) from error
        if schema != SCHEMA:
            raise PlanError(source, expected=SCHEMA, found=repr(schema), way_out="make the plan anew with this version")
        try:
            return Plan(
                sha256=str(document["sha256"]),
                groups=tuple(
                    GroupPlan(str(item["name"]), _whole(item["units"]), tuple(_whole(unit) for unit in item["removed"]))
                    for item in document["groups"]
                ),
                inexact=bool(document["inexact"]),
                ignored=tuple(str(pattern) for pattern in document["ignored"]),
                simplified=bool(document["simplified"]),
                zeros={str(name): _unpack(packed) for name, packed in document["zeros"].items()},
                note=str(document["note"]),
                fitted=tuple(str(name) for name in document.get("fitted", ())),
                features=bool(document.get("features", False)),
            )
        except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise PlanError(
                source, expected=f"every field of {SCHEMA}", found=f"a damaged one ({error})", way_out="make it anew"
            ) from error


def make_plan(
    model: Model,
    units: Units,
    keep: NDArray[np.bool_],
    *,
    inexact: bool = False,
    features: bool = False,
    ignored: tuple[str, ...] = (),
    simplified: bool = False,
    zeros: Mapping[str, NDArray[np.bool_]] | None = None,
    note: str = "",
    fitted: tuple[str, ...] = (),
) -> Plan:
    """State which units go: ``keep`` is bool ``[units.count]``."""
    groups = tuple(
        GroupPlan(
            group.name,
            group.count,
            tuple(int(unit) for unit in np.flatnonzero(~keep[group.places])),
        )
        for group in units.groups
    )
    return Plan(
        sha256=model.sha256,
        groups=groups,
        inexact=inexact,
        ignored=ignored,
        simplified=simplified,
        zeros=zeros or {},
        note=note,
        fitted=fitted,
        features=features,
    )


def _refuse_unbalanced(group: Group, keep: NDArray[np.bool_]) -> None:
    counts = [int(np.count_nonzero(keep[members])) for members in group.members]
    if len(set(counts)) > 1:
        raise PlanError(
            f"group {group.name!r} of the plan",
            expected="equally many units that stay in every block",
            found=f"{counts}",
            way_out="keep the blocks equal",
        )


def _pack(zeros: NDArray[np.bool_]) -> dict[str, Any]:
    packed = zlib.compress(np.packbits(zeros.reshape(-1)).tobytes(), 9)
    return {"shape": list(zeros.shape), "bits": base64.b64encode(packed).decode("ascii")}


def _unpack(packed: Mapping[str, Any]) -> NDArray[np.bool_]:
    shape = tuple(_whole(size) for size in packed["shape"])
    count = prod(shape)
    if min(shape, default=0) < 0 or count > LARGEST_ZEROS:
        raise ValueError(f"zeros of shape {list(shape)[:8]}")
    # No more than the shape asks for, whatever a few bytes may unfold to.
    bits = zlib.decompressobj().decompress(base64.b64decode(packed["bits"]), (count + 7) // 8 or 1)
    if len(bits) < (count + 7) // 8:
        raise ValueError(f"{len(bits)} bytes of zeros for shape {list(shape)}")
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(np.bool_).reshape(shape)


def _whole(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{str(number)[:40]!r} is no whole number")
    return number
