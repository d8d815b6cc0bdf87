"""Where machines are found: ``auto``, ``ray://HOST:PORT`` or ``local:N``."""

import re
from dataclasses import dataclass

from onnxadmm.errors import OptionError


@dataclass(frozen=True)
class Address:
    """A cluster to join, or one to make.

    Attributes:
        local: processes of one core each to start here; None: a running cluster is joined.
        host, port: of its head; None: the one this machine is part of.
    """

    local: int | None = None
    host: str | None = None
    port: int = 0


def parse_address(text: str) -> Address:
    """Read what ``--cluster`` was given.

    Raises:
        OptionError: it is none of the three.

    Examples:
        ```python
        parse_address("local:2").local  # 2
        ```
    """
    if text == "auto":
        return Address()
    if match := re.fullmatch(r"local:([1-9][0-9]{0,3})", text):
        return Address(local=int(match[1]))
    if (match := re.fullmatch(r"ray://(\[[^\]]+\]|[^:/]+):([0-9]{1,5})", text)) and 0 < int(match[2]) < 2**16:
        return Address(host=match[1].strip("[]"), port=int(match[2]))
    raise OptionError(
        "--cluster",
        expected="auto, ray://HOST:PORT or local:N",
        found=repr(text),
        way_out="local:2 starts two processes here; auto joins the Ray cluster that this machine is part of",
    )
