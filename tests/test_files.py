"""Files after crashes, failed writes and concurrent writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpnas.errors import InputError
from gpnas.files import append_line, drop_half_line, read_lines, replacing, write_lines, write_text


def test_a_block_that_ends_replaces_the_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"old")
    with replacing(file) as temporary:
        temporary.write_bytes(b"new")
        assert file.read_bytes() == b"old"
        assert temporary.parent == tmp_path  # a rename across file systems would copy
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_block_that_raises_keeps_the_old_file_and_removes_the_temporary(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"old")

    def write_and_fail() -> None:
        with replacing(file) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_and_fail()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_killed_before_the_rename_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text("old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom gpnas.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('new')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert file.read_text() == "old"


def test_two_writers_of_one_file_have_a_temporary_each(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    with replacing(file) as first, replacing(file) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [file]


def test_text_is_utf_8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "table.csv", "size,größe\r\n1,2\n")
    assert (tmp_path / "table.csv").read_bytes() == b"size,gr\xc3\xb6\xc3\x9fe\r\n1,2\n"


def test_rows_come_back_and_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    drop_half_line(table)
    assert not table.exists()
    write_lines(table, [{"a": 0}])
    write_lines(table, [{"a": 1}, {"a": 2}])
    append_line(table, {"a": 3.5, "b": [1, 2]})
    whole = table.read_bytes()
    assert whole == b'{"a":1}\n{"a":2}\n{"a":3.5,"b":[1,2]}\n'
    table.write_bytes(whole + b'{"a": 4, "b"')
    drop_half_line(table)
    assert table.read_bytes() == whole
    drop_half_line(table)
    assert table.read_bytes() == whole
    assert read_lines(table, ("a",)) == [{"a": 1}, {"a": 2}, {"a": 3.5, "b": [1, 2]}]


def test_a_row_is_flushed_and_on_the_disk_when_append_line_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "rows.jsonl"
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(table.read_bytes()))
    append_line(table, {"a": 1})
    assert synced == [b'{"a":1}\n']


def test_a_file_that_is_only_half_a_line_becomes_empty(tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_bytes(b'{"a"')
    drop_half_line(table)
    assert table.read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"a": 1, "b": 2}\n{"b": 1}\n', 'line 2 must have a, b, got {"b": 1}'),
        ('{"a": 1}', "line 1 must have a, b"),
        ("[1]", r"line 1 must have a, b, got \[1\]"),
        ('{"c": "' + 100 * "x" + '"}', 'got {"c": "x{53}$'),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        read_lines(table, ("a", "b"))


@pytest.mark.parametrize("name", ["absent", "folder", "binary"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        read_lines(tmp_path / name, ())
