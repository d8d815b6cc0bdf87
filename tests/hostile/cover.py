"""A run that is guided by coverage, with atheris: ``python -m tests.hostile.cover -runs=20000 CORPUS``.

The first bytes of an input choose a seed and the numbers of its mutations; atheris changes them towards lines of
the package that no input has reached before. Whatever is neither a result nor a lock nor a sentence ends the run, and
libFuzzer keeps the input. See README.md in this folder for how atheris is installed.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["onnxadmm"]):
    from tests.hostile.mutations import mutate
    from tests.hostile.outcomes import judge
    from tests.hostile.seeds import seeds

    _FOLDER = Path(tempfile.mkdtemp(prefix="onnxadmm-cover-"))
    # What the verbs import while they run is looked into as well.
    for _name, _content in seeds():
        (_FOLDER / "seed.onnx").write_bytes(_content)
        judge(_FOLDER / "seed.onnx", _FOLDER / "out.onnx")


def one_input(data: bytes) -> None:
    """Judge the mutant that some bytes describe."""
    provider = atheris.FuzzedDataProvider(data)
    known = seeds()
    content = known[provider.ConsumeIntInRange(0, len(known) - 1)][1]
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        content, _kinds = mutate(content, provider.ConsumeUInt(4))
    path = _FOLDER / "mutant.onnx"
    path.write_bytes(content)
    outcome = judge(path, _FOLDER / "out.onnx")
    if outcome.kind == "defect":
        path.rename(Path.cwd() / "defect.onnx")
        raise RuntimeError(outcome.words)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
