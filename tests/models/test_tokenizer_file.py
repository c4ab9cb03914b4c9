"""A tokenizer.json may not make a text much longer: the library would end the process, or the machine."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors

from medcare.foundation.errors import ModelError
from medcare.models.base_model import load_tokenizer
from tests.text.tokenizers_by_family import FAMILIES, tokenizer_of


def written(folder: Path, **parts: Any) -> Path:
    """A folder with a tokenizer that has other parts."""
    tokenizer_of("chatml").save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    return folder


def state(part: Any) -> Any:
    return json.loads(part.__getstate__())


def charsmap(*texts: str) -> Any:
    """A map of SentencePiece's without a trie, which says all that it makes of a character."""
    data = struct.pack("<I", 4) + bytes(4) + b"".join(text.encode() + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def template(single: list[dict[str, Any]], **ids: list[int]) -> Any:
    known = {name: {"id": name, "ids": found, "tokens": ["x"] * len(found)} for name, found in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": known}


def sequence(*steps: Any) -> Any:
    return {"type": "Sequence", "normalizers": list(steps)}


def replacing(pattern: Any, content: str, count: int = 1) -> Any:
    return state(normalizers.Sequence([normalizers.Replace(pattern, content)] * count))


TEXT, TOKEN = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "S", "type_id": 0}}
GROW: dict[str, tuple[str, Any]] = {
    "letters that double": ("normalizer", replacing("e", "ee", 45)),
    "the same in sequences": ("normalizer", sequence(*[sequence(replacing("e", "ee"))] * 45)),
    "any letter": ("normalizer", replacing(Regex("."), "x" * 20, 3)),
    "between all letters": (
        "normalizer",
        {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000},
    ),
    "much before": ("normalizer", state(normalizers.Sequence([normalizers.Prepend("x" * 1_000)] * 50))),
    "a long text of a map": ("normalizer", charsmap("a", "x" * 100_000)),
    "decoded tokens": ("decoder", state(decoders.Sequence([decoders.Replace(Regex("."), "x" * 10)] * 12))),
    "many tokens at its ends": ("post_processor", template([TOKEN] * 100 + [TEXT], S=[1] * 1000)),
    "a text again and again": ("post_processor", template([TEXT] * 10_000)),
}


@pytest.mark.parametrize("kind", GROW)
def test_what_grows_is_refused(kind: str, tmp_path: Path) -> None:
    part, made = GROW[kind]
    with pytest.raises(ModelError, match=rf"tokenizer\.json: .*{part} may (make a text|add)"):
        load_tokenizer(str(written(tmp_path, **{part: made})))


@pytest.mark.parametrize("family", FAMILIES)
def test_real_ones_are_loaded(family: str, tmp_path: Path) -> None:
    tokenizer_of(family).save_pretrained(tmp_path)
    load_tokenizer(str(tmp_path))


def test_what_real_ones_do_is_loaded_all_together(tmp_path: Path) -> None:
    """Llama's steps, XLM-R's and T5's in one."""
    first = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581"), normalizers.NFKC()]
    last = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Lowercase()]
    normalizer = state(normalizers.Sequence([*first, *last]))
    decoder = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    parts = {"normalizer": normalizer, "decoder": state(decoders.Sequence(decoder))}
    load_tokenizer(str(written(tmp_path, **parts)))


def test_the_library_grows_as_is_counted() -> None:
    """What is refused is not imagined."""
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, "x"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("e", "ee")] * 9)
    assert len(tokenizer.normalizer.normalize_str("e")) == 512
    tokenizer.post_processor = processors.TemplateProcessing("$A $A $A", special_tokens=[])
    assert len(tokenizer.encode("x").ids) == 3
