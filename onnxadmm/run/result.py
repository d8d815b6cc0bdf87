"""What a run gives back to Python: the report, the small model, the plan; and the folder that it would have written."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from onnxadmm.bench.identity import identify
from onnxadmm.bench.sizes import measure_sizes
from onnxadmm.graph.model import Model, load
from onnxadmm.graph.model import save as save_model
from onnxadmm.output import FP16_NAME, HISTORY_NAME, INT8_NAME, MODEL_NAME, PLAN_NAME, OutputFolder
from onnxadmm.plan.plan import Plan
from onnxadmm.report.report import Column, Report
from onnxadmm.report.variants import gain_in_words
from onnxadmm.report.writer import HistoryWriter, write_report, write_text


class Compressed(Report):
    """What ``compress`` returns: the report, and what it is about.

    A notebook shows it as a table. ``to_dict`` has all of the report in plain values, ``to_dataframe`` its layers.

    Attributes:
        model: the small model, as ``load`` gives it; it lies in memory, or in the file that was written.
        plan: which units of the original are gone.
        int8, fp16: the small model in bytes, and with weights in 16 bits; None where that was not asked for.
        report: the report alone, which this is as well: ``result.after`` is ``result.report.after``.
        layers: every layer of the model as it was analysed, in the order of the graph, as plain dicts: ``name``,
            ``operator``, ``units_before``, ``units_after``... ``report.layers`` has the same as records.

    Examples:
        ```python
        result = oa.compress("model.onnx", calibrate=images, budget=oa.Budget(params=0.5), bench=False)
        print(result.model, result.plan, result.verification.snr_db)
        print(max(result.layers, key=lambda layer: layer["macs_before"])["name"])
        result.save("out/")
        ```
    """

    model: Model
    plan: Plan
    int8: Model | None
    fp16: Model | None
    report: Report
    layers: list[dict[str, Any]]  # type: ignore[assignment]  # whoever has to have records takes those of the report

    def __init__(
        self, report: Report, *, model: Model, plan: Plan, int8: Model | None = None, fp16: Model | None = None
    ) -> None:
        super().__init__(**{item.name: getattr(report, item.name) for item in fields(report)})
        for name, value in (("report", report), ("model", model), ("plan", plan), ("int8", int8), ("fp16", fp16)):
            object.__setattr__(self, name, value)  # frozen, as a report is
        object.__setattr__(self, "layers", [asdict(line) for line in report.layers])

    def to_dict(self) -> dict[str, Any]:
        """Return the dict of the report."""
        return self.report.to_dict()

    def to_dataframe(self) -> Any:
        """Return the ``pandas.DataFrame`` of the report's layers."""
        return self.report.to_dataframe()

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    def __eq__(self, other: object) -> bool:
        return self.report == (other.report if isinstance(other, Compressed) else other)

    __hash__ = Report.__hash__

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Write what ``compress`` writes into its ``out`` folder, all of it or nothing.

        That is ``model.onnx``, its other forms, ``plan.json``, ``report.html``, ``report.json``, ``report.md`` and
        ``history.jsonl``.
        Weights whose connections were pruned are stored sparsely, and external data put into the file, as the call
        asked for; the reports name the file that was written, and its bytes.

        Args:
            folder: where to write; it is made where there is none.
            force: replace an older result in it.

        Raises:
            OutputError: the folder holds a result already and ``force`` is False, or it cannot be written.
        """
        with OutputFolder(folder, force=force, inputs=(self.model.path,)) as output:
            output.begin()
            with HistoryWriter(output.work / HISTORY_NAME) as history:
                for row in self.history:
                    history.append(row)
            sparse = tuple(self.plan.zeros) if self.options.get("sparse", True) else False
            single_file = self.options.get("single_file") is True
            save_model(self.model, output.work / MODEL_NAME, sparse=sparse, single_file=single_file)
            for name, form in ((INT8_NAME, self.int8), (FP16_NAME, self.fp16)):
                if form is not None:
                    save_model(form, output.work / name, single_file=single_file)
            write_text(output.work / PLAN_NAME, self.plan.to_json())
            write_report(self._as_written(output.work), output.work)
            output.publish()

    def _as_written(self, folder: Path) -> Report:
        """The report about models in files: as they lay in memory they had other names, and other bytes."""
        after = _of_file(self.report.after, folder / MODEL_NAME)
        budgets = (
            replace(line, reached=float(after.file_bytes)) if line.kind == "size" else line
            for line in self.report.budgets
        )
        variants = []
        for line in self.report.variants:
            figures = _of_file(line.figures, folder / line.file)
            told = (gain_in_words(line.name, after, figures, line.latency), *line.told[1:])
            variants.append(replace(line, figures=figures, told=told))
        return replace(self.report, after=after, budgets=tuple(budgets), variants=tuple(variants))


def _of_file(column: Column, path: Path) -> Column:
    saved = load(path)
    return replace(column, model=identify(saved), file_bytes=measure_sizes(saved).file_bytes)
