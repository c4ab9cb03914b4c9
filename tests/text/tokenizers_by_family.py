# ruff: noqa: E501  (templates are quoted as they are)
"""A small tokenizer of each family: its kind of vocabulary, its control tokens, its real chat template.

`FAMILIES` have the control tokens and the kind of vocabulary of the real ones; `TEMPLATES` are all chat templates
at hand, those of the installed trl package and some that are written here, over a small byte-level vocabulary.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = [
    "What causes arachnodactyly? Long, slender fingers are seen in Marfan syndrome.",
    "You are a careful assistant. Name the finding: seizure; fever. Code J45.909?",
    "患者无发热，既往有高血压病史。答案为B。The answer is (B).",
    "user assistant system model\n\nINST end start im of turn header id",
]
# Written from the models' documentation; the others are read from the installed trl package.
_LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set sys = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (sys if loop.first else '') + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA3_TOKENS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<|python_tag|>", "<|eom_id|>",
]  # fmt: skip
# family: (template, special tokens, other added tokens, bos, eos, end of turn, sentencepiece-like)
_FAMILIES = {
    "chatml": (_CHATML, _CHATML_TOKENS, [], None, "<|im_end|>", "<|im_end|>", False),
    "qwen2": ("qwen2_5", _CHATML_TOKENS, ["<tool_call>", "</tool_call>"], None, "<|im_end|>", "<|im_end|>", False),
    "qwen3": (
        "qwen3", _CHATML_TOKENS, ["<tool_call>", "</tool_call>", "<think>", "</think>"], None, "<|im_end|>",
        "<|im_end|>", False,
    ),
    "llama2": (_LLAMA2, ["<unk>", "<s>", "</s>"], [], "<s>", "</s>", "</s>", True),
    "llama3": ("llama3", _LLAMA3_TOKENS, [], "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", False),
    "mistral": (_MISTRAL, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], [], "<s>", "</s>", "</s>", True),
    "gemma": (
        "gemma", ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], ["\n\n", "<table>"], "<bos>",
        "<eos>", "<end_of_turn>", True,
    ),
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)


@functools.lru_cache
def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    template, special, added, bos, eos, _, sentencepiece = _FAMILIES[family]
    backend = Tokenizer(
        models.BPE(byte_fallback=sentencepiece, unk_token="<unk>" if "<unk>" in special else None)
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if sentencepiece:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = sorted({*"".join(_CORPUS), *map(chr, range(32, 127)), "▁"})
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    tokens = [*special, *([f"<0x{byte:02X}>" for byte in range(256)] if sentencepiece else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(_CORPUS * 3, trainer)
    if sentencepiece:
        # Bytes are ordinary tokens, reached only through byte fallback: training can't say so, the file can.
        import json

        tree = json.loads(backend.to_str())
        tree["added_tokens"] = [entry for entry in tree["added_tokens"] if entry["content"] in special]
        backend = Tokenizer.from_str(json.dumps(tree))
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    wrapped.chat_template = template if "{" in template else _trl(template)
    return wrapped


# Templates whose facts the models' pages tell: how thoughts are switched, where the date stands, what ends a turn.
_WRITTEN = {
    "granite3": (
        "{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}"
        "{% else %}{% set sys = 'Date of today: ' + strftime_now('%B %d, %Y') + '. You are Granite.' %}{% set rest = messages %}{% endif %}"
        "<|start_of_role|>system<|end_of_role|>{{ sys }}<|end_of_text|>\n"
        "{% for m in rest %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
    ),
    "smollm3": (
        "<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ '/think' if enable_thinking else '/no_think' }}\n\n"
        "{{ messages[0].content if messages[0].role == 'system' else 'You are SmolLM.' }}<|im_end|>\n"
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not enable_thinking %}<think>\n\n</think>\n{% endif %}"
        "{{ m.content.lstrip('\n') }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n{% endif %}{% endif %}"
    ),
    "deepseek_v3_1": (
        "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
        "{% else %}<｜Assistant｜></think>{{ m.content.split('</think>', 1)[1] if '</think>' in m.content else m.content }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜>{{ '<think>' if thinking else '</think>' }}{% endif %}"
    ),
    "no_end": "{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}### assistant: {% endif %}",
}
_SPECIAL = re.compile(
    r"<\|[^|>'\"{}\s]+\|>|<｜[^｜'\"]+｜>|\[gMASK\]|<sop>|<(?:start_of_turn|end_of_turn|end_of_utterance)>|<turn\|>|<\|turn>"
    r"|<\|channel>|<channel\|>|<tool_call\|>|<\|tool_call>|<\|tool_response>|<tool_response\|>"
)
_ADDED = re.compile(r"</?(?:think|tool_call|tool_response|arg_key|arg_value)>")


def _names() -> tuple[str, ...]:
    files = resources.files("trl").joinpath("chat_templates").iterdir()
    names = {file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja")}
    return tuple(sorted({name for name in names if "training" not in name} | set(_WRITTEN)))


TEMPLATES = _names()


@functools.cache
def templated(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with the template of that name, whose control tokens are those that the template writes."""
    source = _WRITTEN.get(name) or _trl(name)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = sorted({*_SPECIAL.findall(source), "<|bos|>", "<|eos|>"})
    trainer = trainers.BpeTrainer(
        vocab_size=330 + len(special),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS * 3, trainer)
    added = sorted(set(_ADDED.findall(source)))
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|bos|>", eos_token="<|eos|>")
    wrapped.chat_template = source
    return wrapped


def end_of_turn(family: str) -> str:
    return _FAMILIES[family][5]


def _trl(name: str) -> str:
    return resources.files("trl").joinpath(f"chat_templates/{name}.jinja").read_text(encoding="utf-8")
