"""llama.cpp itself computes what transformers does; runs where llama-cpp-python is installed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from medcare.export.gguf import export_gguf
from tests.export.gguf_models import CORPUS, PIECES, SPLITS, TEXTS, pieces_tokenizer, save, tokenizer_of

llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")

NEEDS_QUANTIZER = pytest.mark.skipif(not shutil.which("llama-quantize"), reason="needs llama.cpp's program")
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3 = {
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 16,
    "sliding_window": 24,
    "num_hidden_layers": 7,
}
STRETCHED = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e5, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}
MODELS = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 32}),
    "qwen3, wide heads": ("qwen3", {"head_dim": 32}),
    "llama, no groups": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-3}),
    "llama3": ("llama", {"rope_parameters": LLAMA3}),
    "linear": ("qwen2", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama yarn": ("llama", {"rope_parameters": YARN}),
    "qwen3 yarn": ("qwen3", {"rope_parameters": YARN}),
    "phi3": ("phi3", {}),
    "phi3, partial rotation": ("phi3", {"partial_rotary_factor": 0.5}),
    "gemma": ("gemma", {"tie_word_embeddings": True}),
    "gemma2": (
        "gemma2",
        {"tie_word_embeddings": True, "query_pre_attn_scalar": 16, "sliding_window": 24},
    ),
    "gemma3": ("gemma3_text", GEMMA3),
    "gemma3, long": ("gemma3_text", {**GEMMA3, "rope_parameters": STRETCHED}),
}


@pytest.fixture
def opened():
    models = []

    def open_file(path, **options):
        full = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32, "n_threads": 1}
        models.append(llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, verbose=False, **full, **options))
        return models[-1]

    yield open_file
    for model in models:
        model.close()


@pytest.mark.parametrize("name", MODELS)
def test_the_same_logits(name, opened, tmp_path):
    family, settings = MODELS[name]
    model = save(tmp_path / "base", family, **settings)
    ids = torch.randint(3, 600, (1, 100), generator=torch.Generator().manual_seed(1))
    llama = opened(export_gguf(tmp_path / "base", tmp_path / "out", "f32").path, logits_all=True)
    llama.eval(ids[0].tolist())
    want = model(ids).logits[0].detach().numpy()
    # Of logits up to 8; llama.cpp looks GELU up in a table of float16.
    atol = 0.06 if family.startswith("gemma") else 1e-3
    np.testing.assert_allclose(np.array(llama.scores[:100]), want, rtol=0, atol=atol)


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_tokens(split, opened, tmp_path):
    save(tmp_path / "base", "llama", split)
    llama = opened(export_gguf(tmp_path / "base", tmp_path / "out", "f32").path, vocab_only=True)
    tokenizer = tokenizer_of(split)
    for text in [*TEXTS, *CORPUS]:
        ids = tokenizer(text)["input_ids"]
        assert llama.tokenize(text.encode(), add_bos=True, special=True) == ids
        assert b"".join(llama.detokenize([token], special=True) for token in ids) == text.encode()


@pytest.mark.parametrize("family", PIECES)
def test_the_same_tokens_of_sentencepiece(family, opened, tmp_path):
    save(tmp_path / "base", "llama", family)
    llama = opened(export_gguf(tmp_path / "base", tmp_path / "out", "f32").path, vocab_only=True)
    tokenizer = pieces_tokenizer(family)
    for text in [*TEXTS, *CORPUS]:
        ids = tokenizer(text)["input_ids"]
        assert llama.tokenize(text.encode(), add_bos=True, special=True) == ids, text


@pytest.mark.parametrize("kind", ["f16", pytest.param("q6_k", marks=NEEDS_QUANTIZER)])
def test_it_writes_what_transformers_writes(kind, opened, tmp_path):
    model = save(tmp_path / "base", "llama", hidden=256)
    prompt = tokenizer_of("gpt-2").apply_chat_template([{"role": "user", "content": "Fever?"}])["input_ids"]
    path = export_gguf(tmp_path / "base", tmp_path / "out", kind).path
    llama = opened(path, logits_all=True)
    llama.eval(prompt)
    logits = torch.tensor(np.array(llama.scores[: len(prompt)]))
    want = model(torch.tensor([prompt])).logits[0].detach()
    error = (logits - want).square().mean().sqrt() / want.std()
    assert error < (0.01 if kind == "f16" else 0.3)
    answer = [int(token) for _, token in zip(range(12), llama.generate(prompt, temp=0.0), strict=False)]
    assert len(answer) == 12
    if kind == "f16":
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=[])
        assert answer[:4] == ids[0, len(prompt) : len(prompt) + 4].tolist()


def test_generation_ends_at_the_end_of_a_turn(opened, tmp_path):
    save(tmp_path / "base", "llama")
    llama = opened(export_gguf(tmp_path / "base", tmp_path / "out", "f32").path, vocab_only=True)
    assert llama.token_eos() == tokenizer_of("gpt-2").eos_token_id
    assert llama.token_bos() == tokenizer_of("gpt-2").bos_token_id
    assert "im_end" in llama.metadata["tokenizer.chat_template"]
