"""Files of every kind are streamed row by row; what can't be read is told with its line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from medcare.data.readers.rows import expand, open_rows, parse_hub
from medcare.foundation.errors import DataError


def read(path: Path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return [
        (row.number, row.value if row.value is not None else row.problem) for row in open_rows(str(path)).rows
    ]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}', [(1, {"a": 1}), (3, {"a": 2})]),
        ("a.json", '{"a": 1}\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
        ("a.json", '{\n "a": 1\n}\n', [(1, {"a": 1})]),
        ("a.json", ' [ {"a": 1} ,\n{"a": "]"}]\n', [(1, {"a": 1}), (2, {"a": "]"})]),
        ("a.json", "[]", []),
        ("a.csv", 'a,b\n1,"x\ny"\n\n2,z\n', [(2, {"a": "1", "b": "x\ny"}), (5, {"a": "2", "b": "z"})]),
        ("a.tsv", "a\tb\n1\tx,y\n", [(2, {"a": "1", "b": "x,y"})]),
        ("a.csv", "", []),
        ("a.jsonl", "", []),
    ],
)
def test_rows_and_their_numbers(bom: bytes, name: str, text: str, expected, tmp_path: Path) -> None:
    assert read(tmp_path / name, bom + text.encode()) == expected


@pytest.mark.parametrize(
    ("name", "text", "number", "problem"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', 2, "not JSON: "),
        ("a.jsonl", "3\n", 1, "not an object: got int"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xc3\x28"}\n', 2, "broken UTF-8: byte 8 of the line"),
        ("a.jsonl", "[" * 200_000, 1, "not JSON: nested too deeply"),
        ("a.json", '[{"a": 1}, {"a": 2}', 3, "not JSON: the list breaks off"),
        ("a.json", '[{"a": 1}, {"a": }, {"a": 3}]', 2, "not JSON: the list breaks off"),
        ("a.json", '[{"a": 1}, 7]', 2, "not an object: got int"),
        ("a.json", '[{"a": 1}]\n\n{"a": 2}\n', 2, "not JSON: there is text after the end of the list"),
        ("a.csv", '"' + "x" * 200_000, 1, "not CSV: "),
        ("a.csv", "a,b\n1\n", 2, "wrong number of cells: 1, where the first line has 2"),
        ("a.csv", 'a,b\n1,"' + "x" * 200_000, 2, "not CSV: "),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(name, text, number, problem, tmp_path: Path) -> None:
    found = read(tmp_path / name, text)
    line, found_problem = next((line, value) for line, value in found if isinstance(value, str))
    assert line == number
    assert problem in found_problem


def test_a_long_list_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"n": n, "text": "x" * 1000} for n in range(20_000)], indent=1))
    tracemalloc.start()
    numbers = [row.value["n"] for row in open_rows(str(path)).rows if row.value]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers == list(range(20_000))
    assert peak < path.stat().st_size / 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.jsonl", "does not exist"), ("folder", "is a folder"), ("notes.txt", "no known kind")],
)
def test_a_source_that_is_none_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=message):
        open_rows(str(tmp_path / name))


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="can't be read"):
        list(open_rows(str(path)).rows)


def test_patterns_are_expanded_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    assert expand(str(tmp_path / "*.csv")) == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert expand("hf:owner/name*") == ["hf:owner/name*"]
    with pytest.raises(DataError, match="No file matches"):
        expand(str(tmp_path / "*.jsonl"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:o/n", ("o/n", None, "train")),
        ("hf:o/n:test", ("o/n", None, "test")),
        ("hf:o/n:anatomy", ("o/n", "anatomy", "train")),
        ("hf:o/n:anatomy:dev", ("o/n", "anatomy", "dev")),
    ],
)
def test_hub_ids(source: str, expected) -> None:
    assert parse_hub(source) == expected


@pytest.mark.parametrize("source", ["hf:", "hf:o/n:", "hf:o/n:a:b:c"])
def test_malformed_hub_ids_are_refused(source: str) -> None:
    with pytest.raises(DataError, match="hf:owner/name"):
        parse_hub(source)


def test_a_hub_data_set_is_streamed(tmp_path: Path) -> None:
    """The library takes a folder for a data set too, so that this needs no network."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    opened = open_rows(f"hf:{folder}")
    assert [(row.number, row.value) for row in opened.rows] == [(1, {"a": 1}), (2, {"a": 2})]
    assert opened.name == "set"
    with pytest.raises(DataError, match="can't be read"):
        list(open_rows(f"hf:{folder}:test").rows)
