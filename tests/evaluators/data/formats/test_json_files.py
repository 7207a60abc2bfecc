"""A JSON file is told by its head; what it has behind its head is found without building it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data.formats import json_files
from evaluators.data.formats.json_files import HEAD, SMALL, TopLevel, has_keys, mentions, read_json, top_level
from gpnas.errors import DataError


def written(folder: Path, content: object, **options) -> Path:
    path = folder / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, **options), encoding="utf-8")
    return path


def test_keys_come_with_the_kinds_of_their_values(tmp_path):
    content = {"a": {}, "b": [], "c": "]", "d": -1.5, "e": True, "f": False, "g": None}
    kinds = {"a": "object", "b": "list", "c": "string", "d": "number", "e": "boolean", "f": "boolean", "g": "null"}
    assert top_level(written(tmp_path, content)) == TopLevel("object", kinds, True)


def test_a_list_is_told_by_its_first_object(tmp_path):
    assert top_level(written(tmp_path, [{"id": 7, "data": {"x": 1}}, {"other": 1}])) == TopLevel(
        "list", {"id": "number", "data": "object"}, True
    )


@pytest.mark.parametrize("text", ["[]", " [ 1, 2]", '["a"]', "[[{}]]"])
def test_a_list_without_objects_has_no_keys(tmp_path, text):
    assert top_level(written(tmp_path, text)) == TopLevel("list", {}, True)


@pytest.mark.parametrize(
    "text", ["", "  ", "7", '"a"', "null", "<xml/>", "{", "[", '{"a"', '{"a": 1', '{"a" 1}', '{"a": 1;}', "{a: 1}"]
)
def test_what_is_no_json_object_or_list_is_nothing(tmp_path, text):
    path = written(tmp_path, text)
    assert top_level(path) is None
    assert not has_keys(path, "a")


def test_a_missing_file_is_nothing(tmp_path):
    assert top_level(tmp_path / "none.json") is None
    assert not has_keys(tmp_path / "none.json", "a")
    assert not mentions(tmp_path / "none.json", "a")


def test_a_byte_order_mark_is_stepped_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf {"a": 1}')
    assert top_level(path) == TopLevel("object", {"a": "number"}, True)
    assert read_json(path) == {"a": 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    content=st.dictionaries(st.text(), json_values, max_size=6), indent=st.sampled_from([None, 0, 3]), ascii_only=st.booleans()
)
def test_the_scanner_finds_the_keys_that_the_parser_finds(tmp_path_factory, content, indent, ascii_only):
    path = written(tmp_path_factory.mktemp("json"), content, indent=indent, ensure_ascii=ascii_only)
    top = top_level(path)
    assert top is not None and top.is_complete
    assert list(top.keys) == list(content)


@given(content=st.dictionaries(st.text(), json_values, max_size=6), cut=st.integers(0, 200))
def test_of_a_text_that_is_cut_off_the_first_keys_are_known(content, cut):
    text = json.dumps(content).encode()[:cut]
    top = json_files._scan(text, False, frozenset())
    if top is None:
        assert cut == 0
    else:
        assert list(top.keys) == list(content)[: len(top.keys)]
        assert top.is_complete == (text == json.dumps(content).encode())


def test_a_key_behind_a_long_value_is_found_when_the_head_speaks_for_it(tmp_path):
    path = written(tmp_path, {"images": ["x" * 10] * (SMALL // 10), "annotations": [1]})
    assert path.stat().st_size > SMALL
    assert top_level(path) == TopLevel("object", {"images": "list"}, False)
    assert has_keys(path, "images", "annotations")
    assert not has_keys(path, "images", "categories")


def test_a_large_file_whose_head_shows_none_of_the_keys_is_not_read_on(tmp_path, monkeypatch):
    path = written(tmp_path, {"imageData": "x" * SMALL, "shapes": []})
    reads = []
    scan = json_files._scan_file

    def counted(path, limit, *rest):
        reads.append(limit)
        return scan(path, limit, *rest)

    monkeypatch.setattr(json_files, "_scan_file", counted)
    assert not has_keys(path, "images", "annotations")
    assert reads == [HEAD]
    assert has_keys(path, "imageData", "shapes")
    assert reads == [HEAD, None]


def test_a_small_file_is_read_on(tmp_path):
    path = written(tmp_path, {"imageData": "x" * HEAD, "shapes": []})
    assert top_level(path) == TopLevel("object", {"imageData": "string"}, False)
    assert has_keys(path, "shapes")


def test_only_the_head_is_searched_for_words(tmp_path):
    path = written(tmp_path, {"far": "x" * HEAD, "behind": 1})
    assert mentions(path, "near", "far")
    assert not mentions(path, "behind")
    assert not mentions(path, "fa")


def test_broken_json_is_refused_by_name(tmp_path):
    path = written(tmp_path, '{"a": ')
    with pytest.raises(DataError, match=r"a\.json is not valid JSON \(Expecting value.*\); export it again"):
        read_json(path)


def test_a_file_that_was_mended_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"images"')
    assert not has_keys(path, "images")
    path.write_text('{"images": []}')
    assert has_keys(path, "images") and top_level(path) is not None
