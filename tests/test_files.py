from pathlib import Path

import pytest

from gpnas.errors import InputError
from gpnas.files import append_line, drop_half_line, read_lines, write_lines


def test_rows_come_back_and_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    drop_half_line(table)  # nothing there, nothing to do
    write_lines(table, [{"a": 1}, {"a": 2}])
    append_line(table, {"a": 3.5, "b": [1, 2]})
    with table.open("a") as file:
        file.write('{"a": 4, "b"')
    drop_half_line(table)
    assert read_lines(table, ("a",)) == [{"a": 1}, {"a": 2}, {"a": 3.5, "b": [1, 2]}]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 1 is not JSON"), ('{"a": 1}\n{"b": 1}\n', 'line 2 must have a, got {"b": 1}'), ("[1]", "line 1 must have a")],
)
def test_what_is_no_table_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        read_lines(table, ("a",))
    with pytest.raises(InputError, match="cannot be read"):
        read_lines(tmp_path / "absent", ("a",))
