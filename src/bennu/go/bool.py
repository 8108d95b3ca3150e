"""`strconv.ParseBool`: the words that Go takes for yes and no."""

from typing import Final

TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse_bool(text: str) -> bool:
    """Read yes or no as `strconv.ParseBool` does. Raises: ValueError in Go's words."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text[:100]}": invalid syntax')
