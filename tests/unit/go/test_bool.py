import pytest

from bennu.go.bool import parse_bool


def test_yes_and_no() -> None:
    assert all(map(parse_bool, ("1", "t", "T", "true", "TRUE", "True")))
    assert not any(map(parse_bool, ("0", "f", "F", "false", "FALSE", "False")))
    for text in ("", "yes", "tRUE", " 1"):
        with pytest.raises(ValueError, match=f'strconv.ParseBool: parsing "{text}": invalid syntax'):
            parse_bool(text)
