from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from huggingface_hub import constants
from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import BPE

from medcare.foundation.errors import ModelError
from medcare.models import hub_files
from medcare.models.base_model import (
    choose_device,
    load_base,
    load_config,
    load_tokenizer,
    resolve_base,
    skeleton,
)


def load(name):
    return load_base(str(name), device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("damage", ["cut", "overwritten", "gone"])
def test_a_damaged_download_is_one_sentence(damage, tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "overwritten":
        weights.write_bytes(b"\xff" * weights.stat().st_size)
    else:
        weights.unlink()
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "can't be loaded" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("emptied", ["vocabulary", "normalizer"])
def test_a_tokenizer_that_makes_no_tokens_is_told(emptied, tiny_base, tmp_path):
    """A vocabulary without the letters, or a step that takes all of a text away, says nothing by itself."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if emptied == "vocabulary":
        file.model = BPE({}, [])
    else:
        file.normalizer = normalizers.Replace(Regex(r"[\s\S]"), "")
    file.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="makes no tokens of a text"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("name", ["nope", "./nope", "/nope", "~/nope", "a/b/c", ""])
def test_a_mistyped_folder_is_not_asked_for_at_the_hub(name, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match="no model folder"):
        resolve_base(name)


def test_a_run_that_is_missing_is_no_fault_of_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(hub_files, "_is_out_of_reach", lambda: True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for load in (load_config, load_tokenizer):
        with pytest.raises(ModelError, match="no model folder runs/none") as caught:
            load("runs/none")
        assert not any(word in str(caught.value) for word in ("connect", "network", "http"))


def test_a_hub_id_is_passed_on():
    assert resolve_base("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_without_a_way_to_the_hub_nothing_is_retried(monkeypatch):
    def waited(_: float) -> None:
        raise AssertionError("a retry")

    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(time, "sleep", waited)
    for load in (load_config, load_tokenizer):
        with pytest.raises(
            ModelError, match=r"no model folder nobody/nothing.*can't be reached from here"
        ) as caught:
            load("nobody/nothing")
        assert "\n" not in str(caught.value)


def test_a_device_that_is_none_is_told_in_whole_sentences():
    with pytest.raises(ModelError, match=r"'tpu9' can't be used here: .*[^.]\. Try cpu"):
        choose_device("tpu9")


def test_a_config_that_no_model_can_be_built_of_is_one_sentence(tiny_base, tmp_path):
    shutil.copytree(tiny_base, tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "none-such"}))
    with pytest.raises(ModelError, match=r"can't be loaded: .*none-such"):
        skeleton(str(tmp_path / "base"))
