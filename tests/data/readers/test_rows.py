"""Files of every kind are streamed row by row; what can't be read is told with its line."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from medcare.data.readers.rows import expand, open_rows
from medcare.data.readers.tables import parquet_rows
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
        ("a.csv", "\n\na;b\n1;2\n", [(4, {"a": "1", "b": "2"})]),
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
        ("a.json", b'{"a": "\x80",\n"b": 1}\n', 1, "broken UTF-8: byte 8 of the line"),
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
    [
        ("missing.jsonl", "does not exist"),
        ("folder", "is a folder, .* such as .*one.csv"),
        ("empty", "holds no data file"),
        ("notes.pdf", "no known kind"),
    ],
)
def test_a_source_that_is_none_is_refused(name: str, message: str, tmp_path: Path) -> None:
    for folder in ("folder", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "folder" / "one.csv").write_text("question,answer")
    (tmp_path / "notes.pdf").write_text("x")
    with pytest.raises(DataError, match=message):
        open_rows(str(tmp_path / name))


def test_few_rows_of_a_wide_table_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rows with a scan of 8 MB each would take 8 GB."""
    scans = [random.Random(number).randbytes(8 << 20) for number in range(24)]
    table = pa.table({"question": ["Fever?"] * 24, "scan": scans})
    parquet.write_table(table, tmp_path / "a.parquet", compression="none")
    held: list[int] = []
    read = parquet.ParquetFile.iter_batches

    def watched(file: parquet.ParquetFile, **keywords: int) -> Iterator[pa.RecordBatch]:
        for batch in read(file, **keywords):
            held.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", watched)
    assert sum(1 for _ in parquet_rows(tmp_path / "a.parquet")) == 24
    assert max(held) <= 64 << 20


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="can't be read"):
        list(open_rows(str(path)).rows)


def test_patterns_are_expanded_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    assert expand(str(tmp_path / "*.csv")) == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    with pytest.raises(DataError, match="No file matches"):
        expand(str(tmp_path / "*.jsonl"))


GERMAN = "Frage;Antwort\n" + "Was ist Gelbsucht?;Eine Gelbfärbung der Haut – häufig über Tage\n" * 9
CHINESE = '{"instruction": "患者有什么症状？", "output": "无发热，既往有高血压病史。"}\n' * 9


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("a.csv", GERMAN, "cp1252"), ("a.csv", GERMAN, "utf-16"), ("a.csv", GERMAN, "utf-16-le"),
        ("a.jsonl", CHINESE, "gb18030"), ("a.jsonl", CHINESE, "utf-16"), ("a.jsonl", CHINESE, "utf-16-be"),
        ("a.json", f"[{CHINESE.strip().replace(chr(10), ',')}]", "gb18030"), ("a.csv", GERMAN, "utf-8-sig"),
        ("a.json", CHINESE, "utf-32"),
    ],
)  # fmt: skip
def test_other_encodings_are_recognised_and_told(name, text, encoding, tmp_path: Path, capsys) -> None:
    expected = read(tmp_path / name, text)
    assert len(expected) == 9
    assert all(isinstance(value, dict) for _, value in expected)
    assert read(tmp_path / name, text.encode(encoding)) == expected
    assert ("--encoding" in capsys.readouterr().err) == (not encoding.startswith("utf-8"))


def test_an_encoding_that_is_named_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("q,a\nСимптом?,боль\n".encode("koi8-r"))
    (row,) = open_rows(str(path), "koi8-r").rows
    assert row.value == {"q": "Симптом?", "a": "боль"}
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbfq,a\n1,2\n")
    assert [row.value for row in open_rows(str(tmp_path / "b.csv"), "UTF-8").rows] == [{"q": "1", "a": "2"}]
    for encoding in ("utf-16", "utf-32", "utf-7", "hz", "cp037"):
        path.write_bytes("q,a\n1,2\n".encode(encoding))
        assert [row.value for row in open_rows(str(path), encoding).rows] == [{"q": "1", "a": "2"}]
    for encoding in ("klingon", "base64", "idna", "punycode", "utf\0"):  # none of them is of texts
        with pytest.raises(DataError, match=f"no encoding '{encoding}'"):
            open_rows(str(path), encoding)


@pytest.mark.parametrize("count", [1, 2])
def test_a_broken_row_does_not_change_the_encoding_of_the_others(count: int, tmp_path: Path) -> None:
    good = b'{"a": "fever"}\n' * 40
    found = read(tmp_path / "a.jsonl", good + b'{"a": "f\xff"}\n' * count + good)
    assert [isinstance(value, str) for _, value in found].count(True) == count
    many = '{"a": "发热"}\n'.encode() * 40 + b'{"a": "f\xff"}\n' * 20
    assert [isinstance(value, str) for _, value in read(tmp_path / "a.jsonl", many)].count(True) == 20


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_parts_cells_is_seen_in_the_header(delimiter: str, tmp_path: Path) -> None:
    text = delimiter.join(["question", "answer"]) + "\n" + delimiter.join(['"a, b; c"', "d"]) + "\n"
    assert read(tmp_path / "a.csv", text) == [(2, {"question": "a, b; c", "answer": "d"})]


def test_a_header_decides_before_a_guess_does(tmp_path: Path) -> None:
    text = "id,question,A,B,C,D\n0,Which?,one,two,three,four\n"
    (row,) = read(tmp_path / "a.csv", text)
    assert row[1] == {"id": "0", "question": "Which?", "A": "one", "B": "two", "C": "three", "D": "four"}
    assert read(tmp_path / "a.csv", "Which?,one,two,three,four,D\n") == [
        (1, {"question": "Which?", "choices": ["one", "two", "three", "four"], "answer": "D"})
    ]


ROWS = [{"a": "1", "b": "Fieber – hoch"}, {"a": "2", "b": "无发热"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def pack(path: Path) -> None:
    import bz2
    import gzip
    import lzma
    import zipfile

    import pyarrow as pa

    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner/rows.jsonl", LINES)
            archive.writestr("README.md", "x")
    elif path.suffix == ".zst":
        with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as stream:
            stream.write(LINES)
    else:
        path.write_bytes({".gz": gzip, ".bz2": bz2, ".xz": lzma}[path.suffix].compress(LINES))


@pytest.mark.parametrize("ending", [".jsonl.gz", ".ndjson.bz2", ".jsonl.xz", ".jsonl.zst", ".zip"])
def test_packed_files(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}"
    pack(path)
    opened = open_rows(str(path))
    assert opened.name == "rows"
    assert [row.value for row in opened.rows] == ROWS
    assert expand(str(tmp_path)) == [str(path)]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"can't be read|no .zip file"):
        list(open_rows(str(path)).rows)


def test_an_archive_holds_one_data_file(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.csv", "a\n1\n")
        archive.writestr("two.csv", "a\n2\n")
    with pytest.raises(DataError, match="holds 2 data files"):
        open_rows(str(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.writestr("one.csv", "a\n1\n")
        archive.writestr("__MACOSX/._one.csv", "what the Finder keeps")
    assert [row.value for row in open_rows(str(tmp_path / "mac.zip")).rows] == [{"a": "1"}]
    whole = bytearray((tmp_path / "mac.zip").read_bytes())
    central = whole.index(b"PK\x01\x02")
    whole[8:10] = whole[central + 10 : central + 12] = (99).to_bytes(2, "little")  # a packing of one's own
    (tmp_path / "odd.zip").write_bytes(whole)
    with pytest.raises(DataError, match=r"odd\.zip can't be read: That compression method is not supported"):
        list(open_rows(str(tmp_path / "odd.zip")).rows)


def test_tables_of_other_programs(tmp_path: Path) -> None:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(tmp_path / "set")
    (arrow,) = (tmp_path / "set").glob("*.arrow")
    assert [row.value for row in open_rows(str(arrow)).rows] == ROWS
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert [row.value for row in open_rows(str(tmp_path / "file.arrow")).rows] == ROWS
    pd.DataFrame(ROWS).to_excel(tmp_path / "a.xlsx", index=False)
    assert [row.value for row in open_rows(str(tmp_path / "a.xlsx")).rows] == ROWS
    (tmp_path / "a.xlsx").write_bytes(b"PK no")
    with pytest.raises(DataError, match="can't be read"):
        list(open_rows(str(tmp_path / "a.xlsx")).rows)


def test_rows_within_one_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"q": "1"}, {"q": "2"}]
    for tree in (
        {"train": rows},
        {"version": "1", "exams": {"2013": {"name": "x", "data": rows[:1]}, "2014": {"data": rows[1:]}}},
    ):
        for indent in (None, 1):
            path.write_text(json.dumps(tree, indent=indent))
            opened = open_rows(str(path), is_row=lambda row: "q" in row)
            assert [row.value for row in opened.rows] == rows
    path.write_text(json.dumps({"17": {"q": "1"}, "18": {"q": "2"}}))
    opened = open_rows(str(path), is_row=lambda row: "q" in row)
    assert [row.value for row in opened.rows] == [{"id": "17", "q": "1"}, {"id": "18", "q": "2"}]


def test_a_folder_is_all_the_data_files_in_it(tmp_path: Path) -> None:
    for name in ("b.csv", "data/a-0.parquet", "data/a-1.parquet", ".cache/x.csv", "README.md", "c.jsonl.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(name).name for name in expand(str(tmp_path))]
    assert found == ["b.csv", "c.jsonl.gz", "a-0.parquet", "a-1.parquet"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data file"):
        expand(str(tmp_path / "empty"))


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


def test_a_text_file_is_one_document_and_a_very_long_one_is_parted_between_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("medcare.data.readers.rows._LONGEST_TEXT", 40)
    path = tmp_path / "book.txt"
    path.write_bytes("Asthma is a disease.\r\n\r\n哮喘".encode())
    (row,) = open_rows(str(path)).rows
    assert (row.number, row.value) == (1, {"text": "Asthma is a disease.\n\n哮喘"})
    lines = [f"Line {number} of the book.\n" for number in range(20)]
    path.write_text("".join(lines))
    rows = list(open_rows(str(path)).rows)
    assert "".join(row.value["text"] for row in rows) == "".join(lines)
    assert all(row.value["text"].endswith("\n") and len(row.value["text"]) <= 80 for row in rows)
    assert [row.number for row in rows] == [
        1 + "".join(lines[: lines.index(row.value["text"].splitlines(keepends=True)[0])]).count("\n")
        for row in rows
    ]


def test_a_tilde_is_the_home_where_no_shell_has_seen_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n")
    assert expand("~/*.csv") == [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert expand("~/a.csv") == [str(tmp_path / "a.csv")]
    assert [row.value for row in open_rows("~/a.csv").rows] == [{"a": "1"}]


def test_texts_of_a_folder_are_data_where_nothing_else_is(tmp_path):
    (tmp_path / "README.txt").write_text("about")
    assert expand(str(tmp_path)) == [str(tmp_path / "README.txt")]
    (tmp_path / "rows.jsonl").write_text("{}")
    assert expand(str(tmp_path)) == [str(tmp_path / "rows.jsonl")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_without_end_is_one_bad_row(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed file may unpack to any size; of a line that is too long the beginning is held, and no more."""
    for module in ("data_file", "json_rows"):
        monkeypatch.setattr(f"medcare.data.readers.{module}.LONGEST_LINE", 1000)
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt", newline="") as stream:
        stream.write(f'{{"a": 1}}{end}{{"a": "')
        for _ in range(40):
            stream.write("x" * 1_000_000)
        stream.write(f'"}}{end}{{"a": 3}}{end}')
    tracemalloc.start()
    rows = list(open_rows(str(path)).rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(row.number, row.value) for row in rows] == [(1, {"a": 1}), (2, None), (3, {"a": 3})]
    assert rows[1].problem == "too long: more than 1,000 characters in a line"
    assert peak < 10_000_000


def test_a_table_with_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("data_file", "tables"):
        monkeypatch.setattr(f"medcare.data.readers.{module}.LONGEST_LINE", 1000)
    with pytest.raises(DataError, match=r"line 3: a line of a table has at most 1,000 letters"):
        read(tmp_path / "a.csv", "a,b\n1,2\n" + "1," * 5000)


def test_a_workbook_that_is_far_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """A cell in the last row and one in the last column: the library would hold all between them."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "question", "x"
    book.save(tmp_path / "far.xlsx")
    with pytest.raises(DataError, match=r"far\.xlsx can't be read in 4 GiB of memory .* Save it as CSV"):
        list(open_rows(str(tmp_path / "far.xlsx")).rows)


def test_a_workbook_is_read_where_less_is_allowed_than_it_may_take(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.active.append(["q", "a"])
    book.save(tmp_path / "a.xlsx")
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (300, 300)); "
        "from medcare.data.readers.rows import open_rows; "
        "print([row.value for row in open_rows(sys.argv[1]).rows])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.xlsx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[{'question': 'q', 'answer': 'a'}]\n"
