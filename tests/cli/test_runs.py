"""What a person sees who types a command wrong: one sentence, a non-zero exit, no traceback."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest
from transformers.utils import logging
from typer.testing import CliRunner

from medcare.__main__ import main
from medcare.cli import app
from medcare.foundation.errors import AdapterError, ConfigError, DataError, FolderError, ModelError

CPU = ("--set", "model.device=cpu", "--set", "model.dtype=float32")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def medcare(monkeypatch, capfd):
    """Runs a command as it is typed, in this process: the imports are not paid for again."""

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["medcare", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(stopped.value.code or 0, *capfd.readouterr())

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    logging.disable_progress_bar()  # main() says so in the environment, which is too late here
    yield run
    logging.enable_progress_bar()


def assert_one_sentence(done, code, *words):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_help_names_the_commands_and_the_limits(medcare):
    done = medcare("--help")
    assert done.returncode == 0
    for command in ("run", "train", "merge", "evaluate", "data", "score"):
        assert command in done.stdout
    assert "not a medical device" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("align.epoch=2", ("Unknown setting 'align.epoch'", "Did you mean 'align.epochs'?")),
        ("align.epochs=two", ("align.epochs must be a whole number",)),
        ("align.orthogonality=l3", ("must be one of l1, frobenius, projection, inputs, contrast, none",)),
        ("adapters.top_k=9", ("adapters.top_k must be from 1 to 8, got 9",)),
        ("epochs", ("--set takes key=value",)),
    ],
)
def test_a_wrong_setting(medcare, tmp_path, setting, words):
    done = medcare("run", "--out", tmp_path / "run", "--set", setting)
    assert_one_sentence(done, ConfigError.exit_code, *words)
    assert not (tmp_path / "run").exists()


def test_a_config_file_that_is_missing_or_no_mapping(medcare, tmp_path):
    done = medcare("run", tmp_path / "none.yaml", "--out", tmp_path / "run")
    assert_one_sentence(done, ConfigError.exit_code, "none.yaml does not exist")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    done = medcare("run", tmp_path / "list.yaml", "--out", tmp_path / "run")
    assert_one_sentence(done, ConfigError.exit_code, "must hold a mapping")


def test_a_base_that_is_not_there(medcare, tmp_path):
    (tmp_path / "d.csv").write_text("question,answer\nWhich code?,R50\n")
    train = ("train", "--stage", "aggregate", "--out", tmp_path / "a", "--data", tmp_path / "d.csv", *CPU)
    done = medcare(*train, "--set", "model.base=./nothing")
    assert_one_sentence(done, ModelError.exit_code, "no model folder ./nothing")


def test_a_hub_id_that_can_not_be_had(medcare, tmp_path):
    done = medcare("ask", "nobody/nothing-7b", "What is fever?")
    assert_one_sentence(done, ModelError.exit_code, "nobody/nothing-7b", "can't be loaded")


def test_modules_that_match_nothing(medcare, tiny_base, tmp_path):
    (tmp_path / "d.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    done = medcare(
        "train", "--stage", "aggregate", "--out", tmp_path / "a", "--data", tmp_path / "d.jsonl", *CPU,
        "--set", f"model.base={tiny_base}", "--set", "adapters.feed_forward=[fc_in]",
    )  # fmt: skip
    assert_one_sentence(done, AdapterError.exit_code, "No linear layer is called fc_in", "gate_proj (2x)")


def test_data_that_is_missing_or_malformed(medcare, tiny_base, tmp_path):
    train = (
        "train",
        "--stage",
        "aggregate",
        "--out",
        tmp_path / "a",
        *CPU,
        "--set",
        f"model.base={tiny_base}",
    )
    done = medcare(*train, "--data", tmp_path / "none.jsonl")
    assert_one_sentence(done, DataError.exit_code, "none.jsonl does not exist")
    (tmp_path / "torn.jsonl").write_text('{"messages": [')
    assert_one_sentence(medcare(*train, "--data", tmp_path / "torn.jsonl"), DataError.exit_code, "line 1")


def test_merging_what_is_no_stage(medcare, tmp_path):
    done = medcare("merge", tmp_path, "--out", tmp_path / "out")
    assert_one_sentence(done, FolderError.exit_code, "manifest.json")
    done = medcare("merge", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert_one_sentence(done, ModelError.exit_code, "no folder")


def test_an_out_that_is_in_use(medcare, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    done = medcare("run", "--out", tmp_path, *CPU)
    assert_one_sentence(done, FolderError.exit_code, "not empty")
    done = medcare("run", "--out", tmp_path / "letter.txt", *CPU)
    assert_one_sentence(done, FolderError.exit_code, "is a file")
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_stage_that_does_not_exist(medcare, tmp_path):
    done = medcare("train", "--stage", "third", "--out", tmp_path / "x")
    assert done.returncode == 2
    assert "must be one of aggregate, align" in done.stderr


@pytest.mark.parametrize("command", ["run", "train", "evaluate"])
def test_a_setting_given_as_an_option_is_told_where_it_belongs(command):
    outcome = CliRunner().invoke(app, [command, "--epochs", "2"])
    assert isinstance(outcome.exception, ConfigError)
    assert "no option --epochs" in str(outcome.exception)
    assert "--set aggregate.epochs=VALUE or --set align.epochs=VALUE" in str(outcome.exception)
    unknown = CliRunner().invoke(app, [command, "--nonsense", "2"])
    assert isinstance(unknown.exception, SystemExit)
