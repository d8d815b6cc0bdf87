"""What ``--cluster`` takes."""

import pytest

from onnxadmm.cluster.address import Address, parse_address
from onnxadmm.errors import OptionError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("auto", Address()),
        ("local:2", Address(local=2)),
        ("ray://10.0.0.1:10001", Address(host="10.0.0.1", port=10001)),
        ("ray://head.example:1", Address(host="head.example", port=1)),
        ("ray://[::1]:10001", Address(host="::1", port=10001)),
    ],
)
def test_three_forms_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "local", "local:0", "local:-1", "ray://host", "ray://host:0", "10.0.0.1:6379"])
def test_others_are_refused_with_the_three(text: str) -> None:
    with pytest.raises(OptionError, match="auto, ray://HOST:PORT or local:N"):
        parse_address(text)
