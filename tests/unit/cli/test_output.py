"""Tables."""

from bennu.cli.output import align


def test_a_table_has_three_spaces_and_ten_columns_at_least() -> None:
    assert align([["ID", "A LONG HEADING", "LAST"], ["1", "x", ""]]) == (
        "ID        A LONG HEADING   LAST\n1         x                "
    )
