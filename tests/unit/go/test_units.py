import pytest

from bennu.go.units import human_size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1024, "1.024kB"),
        (1982256, "1.982MB"),
        (10**15, "1PB"),
        (10**18, "1000PB"),
    ],
)
def test_sizes_have_four_digits_and_decimal_units(size: int, text: str) -> None:
    assert human_size(size) == text
