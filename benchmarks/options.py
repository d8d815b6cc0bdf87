"""The page of all options, made from the command line itself.

Run from the root of the repository: ``python -m benchmarks.options > docs/options.md``.
"""

from typing import Any, Final

import typer

from onnxadmm.cli.app import app

_HEAD: Final = """# Every option

Made from the command line by `python -m benchmarks.options`; do not edit. [The guide](guide.md) says what the options
are for, and `onnxadmm VERB -h` prints these tables in short.

Shares are written `0.3` or `30%`, amounts also `20M` or `2MB`. In Python an option has the same name with underscores:
`--batch-size` is `batch_size` of [`Recipe`](reference.md). An option without a default is off, or chosen by the run, as
the words behind it say.
"""
#: What typer adds of its own, in words that do not depend on its version.
_COMPLETION: Final = {
    "install_completion": "have the shell complete verbs and options",
    "show_completion": "print what that would install",
}


def page() -> str:
    """Return the page: Markdown with a table for every verb."""
    group: Any = typer.main.get_command(app)
    parts = [_HEAD, "## Before the verb\n\n" + _usage("onnxadmm", group.params) + _table(group.params)]
    for name, command in group.commands.items():
        sentence = " ".join(command.help.split())
        usage = _usage(f"onnxadmm {name}", command.params)
        parts.append(f"## {name}\n\n{sentence}\n\n{usage}{_table(command.params)}")
    return "\n".join(parts)


def _usage(words: str, parameters: list[Any]) -> str:
    """The line to type, with what may not be left out."""
    needed = [_argument(field) for field in parameters if not _is_option(field)]
    options = [field for field in parameters if _is_option(field)]
    needed += [f"{field.opts[-1]} {_placeholder(field)}" for field in options if field.required]
    rest = "VERB ..." if words == "onnxadmm" else ""
    return f"```text\n{' '.join(filter(None, [words, *needed, '[OPTIONS]', rest]))}\n```\n\n"


def _table(parameters: list[Any]) -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    lines += [f"| {_names(field)} | {_default(field)} | {_meaning(field)} |" for field in parameters]
    lines.append("| `-h`, `--help` |  | show this in short and exit |")
    return "\n".join(lines) + "\n"


def _is_option(field: Any) -> bool:
    return bool(field.param_type_name == "option")


def _argument(field: Any) -> str:
    name = str(field.metavar or field.name.upper())
    return f"{name}..." if field.nargs == -1 else name


def _placeholder(field: Any) -> str:
    """What stands for the value: as declared, else the option's name in capitals; nothing behind a switch."""
    if field.is_flag:
        return ""
    return str(field.metavar or field.name.upper())


def _names(field: Any) -> str:
    if not _is_option(field):
        return f"`{_argument(field)}`"
    names = [f"`{name}`" for name in (*field.opts, *field.secondary_opts)]
    placeholder = "" if field.name in _COMPLETION else _placeholder(field)
    return ", ".join(names) + (f" `{placeholder}`" if placeholder else "")


def _default(field: Any) -> str:
    if field.required:
        return "required"
    if field.default is None or field.default is False or field.default == "":
        return ""
    return f"`{field.opts[0]}`" if field.default is True else f"`{field.default}`"


def _meaning(field: Any) -> str:
    return str(_COMPLETION.get(field.name, field.help)).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
