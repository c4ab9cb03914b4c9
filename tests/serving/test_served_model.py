from __future__ import annotations

from pathlib import Path

import pytest

from medcare.foundation.errors import ConfigError, ModelError
from medcare.serving import served_model
from medcare.serving.served_model import _name, load_served
from medcare.text.records import Message
from tests.conftest import tiny_model
from tests.serving.conftest import served
from tests.text.tokenizers_by_family import FAMILIES, tokenizer_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = tokenizer_of("chatml")
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_models_are_loaded_by_name_or_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_served([str(folder), f"second={folder}"], device="cpu", dtype="float32", max_rows=3)
    assert [model.name for model in loaded] == ["model", "second"]
    assert loaded[0].engine.max_rows == 3
    assert not loaded[0].model.training
    assert "Loading second" in capsys.readouterr().err


def test_names_are_told_apart(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Two models are called 'model'"):
        load_served([str(folder), str(folder)], device="cpu", dtype="auto")
    with pytest.raises(ModelError, match="names no model"):
        load_served(["=x"], device="cpu", dtype="auto")
    with pytest.raises(ModelError, match="no model folder"):
        load_served(["a=./nothing/there/at/all"], device="cpu", dtype="auto")


def test_a_base_is_for_those_that_have_one(folder: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="is a whole model"):
        load_served([str(folder), f"again={folder}"], device="cpu", dtype="float32", base=str(folder))
    (tmp_path / "adapter").mkdir()
    monkeypatch.setattr(served_model, "load_one", lambda name, _, base, **more: (name, base))
    models = [str(folder), str(tmp_path / "adapter")]
    named = load_served(models, device="cpu", dtype="float32", base="moved")
    assert named == [("model", None), ("adapter", "moved")]


def test_names(tmp_path: Path) -> None:
    assert _name("embedded") == ("embedded", "embedded")
    assert _name("runs/demo/model/") == ("model", "runs/demo/model/")
    assert _name("base=embedded") == ("base", "embedded")
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert _name(str(odd)) == ("a=b", str(odd))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_becomes_a_control_token(family: str) -> None:
    model = served()
    model.tokenizer = tokenizer = tokenizer_of(family)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    text = "a" + " b ".join(special) + "c"
    inside = {tokenizer.convert_tokens_to_ids(spelling) for spelling in special}
    start = list(tokenizer("")["input_ids"])
    ids = model.text_prompt(text)
    assert ids[: len(start)] == start
    assert not inside & set(ids[len(start) :])
    # Where a control token is cut, some tokenizers write a space.
    assert tokenizer.decode(ids[len(start) :]).replace(" ", "") == text.replace(" ", "")
    plain, hostile = (model.chat_prompt([Message("user", words)]) for words in ("hello", text))
    assert sum(token in inside for token in hostile) == sum(token in inside for token in plain)
