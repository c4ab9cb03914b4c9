"""The tokenizer and chat template that belong to a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medcare.adapters.loading import base_source, load_model, tokenizer_of
from medcare.foundation.errors import ConfigError, FolderError


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """A PEFT folder as far as its tokenizer goes."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": str(tiny_base), "peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_peft_folder_without_a_tokenizer_has_its_bases(adapter: Path, tiny_base: Path) -> None:
    assert tokenizer_of(adapter).chat_template == tokenizer_of(tiny_base).chat_template


def test_a_peft_folders_own_template_and_tokenizer_win(adapter: Path, tiny_base: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_of(adapter).chat_template == "{{ messages }}"
    for file in tiny_base.glob("tokenizer*"):
        shutil.copy(file, adapter)
    settings = json.loads((adapter / "tokenizer_config.json").read_text())
    (adapter / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    own = tokenizer_of(adapter)
    assert (own.eos_token, own.chat_template) == ("<|endoftext|>", "{{ messages }}")


def test_a_named_template_wins_over_all(adapter: Path, tmp_path: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    named = tmp_path / "named.jinja"
    named.write_text("{{ messages[0] }}")
    assert tokenizer_of(adapter, str(named)).chat_template == "{{ messages[0] }}"


@pytest.mark.parametrize(("content", "told"), [(None, "can't be read"), (" ", "is empty")])
def test_a_template_that_can_not_be_read_is_told(content, told, adapter: Path, tmp_path: Path) -> None:
    file = tmp_path / "named.jinja"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=told):
        tokenizer_of(adapter, str(file))


def test_a_model_and_an_adapter_in_one_folder_are_told(adapter: Path, tiny_base: Path) -> None:
    """Which is meant is nowhere said; transformers would load the adapter over a base of its own choice."""
    both = shutil.copytree(tiny_base, adapter.parent / "both")
    shutil.copy(adapter / "adapter_config.json", both)
    run = adapter.parent / "run"
    shutil.copytree(both, run / "model")
    for folder in (both, run):
        for use in (load_model, tokenizer_of, base_source):
            with pytest.raises(FolderError, match=r"whole model .* and an adapter"):
                use(folder)
