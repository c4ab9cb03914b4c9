"""Small random models with byte-level tokenizers that split text as the families of GGUF do."""

from __future__ import annotations

import functools
import json

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

CORPUS = [
    "What causes arachnodactyly? Long, slender fingers are seen in Marfan syndrome, it's said; we'll see.",
    "You are a careful assistant.\n\nThe finding: seizure; fever. Code J45.909 in 2024? 38.5 °C, 140/90",
    "患者无发热，既往有高血压病史。答案为B。 Sjögren's and Ménière’s, β-blocker, μg",
    "user assistant system model end start im of turn header id  two  blanks    four\tTAB UPPER CamelCase",
]
TEXTS = [
    "Fever, 38.5 °C;  it's J45.909.\n\n  next\tline", "高血压 140/90mmHg。", "Sjögren's 1234567 αβγ ½ Ⅳ",
    " a  b   c \r\n d", "<|im_start|>user\nHi<|im_end|>", "<think>no</think> CamelCASE'LL don't",
    "🩺👩🏽‍⚕️ \u00a0x\u3000y", "", "   ",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPLITS = ("gpt-2", "smollm", "qwen2", "llama-bpe", "smaug-bpe", "tekken")
# What transformers' own reader splits alike; for the others it takes GPT-2's way.
READ_BACK = ("gpt-2", "qwen2", "llama-bpe", "smaug-bpe", "tekken")
VOCABULARY = 704


def pre_tokenizer(split):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in ("gpt-2", "smollm"))
    if split == "gpt-2":
        return byte_level
    first = (
        pre_tokenizers.Digits(individual_digits=True)
        if split == "smollm"
        else pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[split]), behavior="isolated")
    )
    return pre_tokenizers.Sequence([first, byte_level])


@functools.lru_cache
def tokenizer_of(split, *, adds_bos=False):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer(split)
    backend.decoder = decoders.ByteLevel()
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=680,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    if split in ("llama-bpe", "tekken"):
        tree = json.loads(backend.to_str())
        tree["model"]["ignore_merges"] = True
        backend = Tokenizer.from_str(json.dumps(tree))
    backend.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")]
    )
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", pair=None, special_tokens=[("<|endoftext|>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )


PIECES = ("llama2", "gemma")


@functools.lru_cache
def pieces_tokenizer(family):
    """SentencePiece's tokenizer as its families have it: merges made out of scores, bytes for the unknown."""
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    prepend = [normalizers.Prepend("▁")] if family == "llama2" else []
    normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=420, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]["vocab"]
    whole = sorted(learnt, key=learnt.get)
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *whole]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in whole
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair=None, special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
    )


def random_model(family, *, hidden=64, seed=0, **settings):
    """A model in which no weight, norm or bias is what it would be by default."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        **{
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 0,
            **settings,
        },
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.2)
    return model


def save(folder, family, split="gpt-2", **settings):
    """Write a model folder as a user has one.

    Returns:
        The model.
    """
    model = random_model(family, **settings)
    model.save_pretrained(folder)
    tokenizer = pieces_tokenizer(split) if split in PIECES else tokenizer_of(split)
    tokenizer.save_pretrained(folder)
    return model
