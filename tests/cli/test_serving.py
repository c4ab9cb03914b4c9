from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcare.cli import app
from medcare.foundation.errors import ConfigError, ModelError
from tests.conftest import tiny_model
from tests.text.tokenizers_by_family import tokenizer_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = tokenizer_of("chatml")
    tokenizer.save_pretrained(tmp_path / "tiny")
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_chat_answers_piped_lines(folder: Path) -> None:
    command = [
        "chat",
        str(folder),
        "--device",
        "cpu",
        "--max-new-tokens",
        "6",
        "--temperature",
        "1",
        "--seed",
        "3",
    ]
    first, second = (CliRunner().invoke(app, command, input="What is fever?\nAnd pain?\n") for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout == second.stdout, "a seed repeats the conversation"
    assert len(first.stdout) > 5
    assert "research only" in first.stderr
    assert "research only" not in first.stdout


def test_a_key_that_is_not_set_is_no_open_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("MEDCARE_TEST_KEY", raising=False)
        else:
            monkeypatch.setenv("MEDCARE_TEST_KEY", value)
        result = CliRunner().invoke(app, ["serve", "embedded", "--api-key-env", "MEDCARE_TEST_KEY"])
        assert isinstance(result.exception, ConfigError)
        assert "MEDCARE_TEST_KEY, which is not set or empty" in str(result.exception)


def test_what_can_not_be_served() -> None:
    result = CliRunner().invoke(app, ["serve", "x=./no/such/folder"])
    assert isinstance(result.exception, ModelError)
    result = CliRunner().invoke(app, ["chat", "embedded", "--dtype", "int3"])
    assert result.exit_code == 2
    assert "int3" in result.output


def test_an_empty_question_is_refused() -> None:
    for question in ("", " \n"):
        with pytest.raises(ConfigError, match="question is empty"):
            CliRunner().invoke(app, ["ask", "embedded", question], catch_exceptions=False)


def test_the_home_of_a_user_that_is_not_there_is_a_folder_that_is_not_there() -> None:
    for command in (["chat", "~nobody-here/model"], ["evaluate", "~nobody-here/model", "--out", "unwritten"]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, ModelError), result.exception
        assert "~nobody-here/model" in str(result.exception)
