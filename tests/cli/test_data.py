"""`medcare data` as a person uses it: tables, JSON, exit codes, one clear sentence for bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcare.__main__ import main
from medcare.cli import app
from tests.data.readers.samples import write

GOOD = {"instruction": "What is [bold]asthma[/bold]?", "output": "A disease."}


def call(*arguments: str | Path):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_known_sets_as_a_table_and_as_json() -> None:
    table, machine = call("list"), call("list", "--json")
    names = [known["name"] for known in json.loads(machine.stdout)]
    assert "promptcblue" in names
    for name in names:
        assert name in table.stdout


def test_a_good_file_passes(tmp_path: Path) -> None:
    result = call("check", write(tmp_path / "a.jsonl", [GOOD, GOOD]))
    assert result.exit_code == 0
    assert "alpaca" in result.stdout
    assert "line 2 repeats line 1" in result.stdout


def test_bad_rows_are_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, {**GOOD, "output": ""}])
    result = call("check", path, "--write-good", tmp_path / "good.jsonl")
    assert result.exit_code == 3
    assert "line 2: empty answer: turn 2" in result.stdout
    assert (tmp_path / "good.jsonl.bad.jsonl").exists()
    machine = call("check", path, "--json")
    assert machine.exit_code == 3
    assert json.loads(machine.stdout)["bad"] == {"empty answer": 1}


def test_lengths_in_tokens(tmp_path: Path, tiny_base: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD])
    result = call("check", path, "--tokenizer", tiny_base, "--max-length", "3", "--json")
    report = json.loads(result.stdout)
    assert report["lengths"]["unit"] == "tokens"
    assert report["too_long"] == 1


def test_the_first_rows_are_shown_as_the_model_sees_them(tmp_path: Path, tiny_base: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD])
    shown = call("check", path, "--tokenizer", tiny_base).stdout
    assert "<|im_start|>assistant" in shown
    assert f"⟦{GOOD['output']}<|im_end|>⟧" in shown
    assert "positions" in shown
    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}={{ m.content }}<|im_end|>{% endfor %}")
    own = call("check", path, "--tokenizer", tiny_base, "--chat-template", template).stdout
    assert f"⟦assistant={GOOD['output']}<|im_end|>⟧" in own
    assert call("check", path, "--chat-template", template).exit_code != 0


def test_a_mix_is_built(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [GOOD])
    (tmp_path / "r.yaml").write_text("total: 3\nsources:\n  - {name: a, data: a.jsonl}\n")
    result = call("build", tmp_path / "r.yaml", "--out", tmp_path / "mix.jsonl")
    assert result.exit_code == 0
    assert len((tmp_path / "mix.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "mix.jsonl.manifest.json").exists()


def test_overlap_is_told_and_removed(tmp_path: Path) -> None:
    other = {"instruction": "q", "output": "a"}
    train = write(tmp_path / "train.jsonl", [GOOD, other])
    test = write(tmp_path / "test.jsonl", [GOOD])
    result = call("overlap", "--train", train, "--test", test, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["overlap"]["train_hits"]["exact"] == 1
    result = call("overlap", "--train", train, "--test", test, "--remove", tmp_path / "clean.jsonl")
    assert result.exit_code == 0
    assert "exact" in result.stdout
    assert len((tmp_path / "clean.jsonl").read_text().splitlines()) == 1
    assert call("overlap", "--train", tmp_path / "clean.jsonl", "--test", test).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("check", "none.jsonl"), 3, "error: none.jsonl does not exist."),
        (("check", "a.jsonl", "--format", "alpacca"), 3, "Did you mean 'alpaca'?"),
        (("check", "a.jsonl", "--tokenizer", "./none"), 4, "error: There is no model folder none."),
        (("build", "r.yaml", "--out", "m.jsonl"), 2, "Did you mean 'sources'?"),
        (("build", "none.yaml", "--out", "m.jsonl"), 2, "error: none.yaml does not exist"),
        (("overlap", "--train", "a.jsonl", "--test", "a.jsonl", "--near", "2"), 3, "must be in (0, 1]"),
    ],
)
def test_bad_input_is_one_sentence(arguments, code, message, tmp_path: Path, monkeypatch, capsys) -> None:
    write(tmp_path / "a.jsonl", [GOOD])
    (tmp_path / "r.yaml").write_text("source: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medcare", "data", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr().err
    assert stopped.value.code == code
    assert message in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_table_is_read_by_naming_its_columns(tmp_path):
    path = tmp_path / "faq.csv"
    path.write_bytes("Frage;Antwort\nWas ist Gelbsucht?;Eine Gelbfärbung häufig über Tage\n".encode("cp1252"))
    good = tmp_path / "good.jsonl"
    options = ["--map", "question=Frage", "--map", "answer=Antwort", "--encoding", "cp1252"]
    done = CliRunner().invoke(app, ["data", "check", str(path), *options, "--write-good", str(good)])
    assert done.exit_code == 0, done.output
    assert "Gelbfärbung" in good.read_text(encoding="utf-8")
    done = CliRunner().invoke(app, ["data", "check", str(path), "--map", "question"])
    assert "NAME=COLUMN" in str(done.exception)
