"""A GGUF file holds the tokenizer: its tokens, types and merges, and the same ids when it is read back."""

from __future__ import annotations

import json

import pytest
from gguf import GGUFReader, TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from medcare.export.gguf import export_gguf
from medcare.export.gguf_tokenizer import read_vocabulary
from medcare.foundation.errors import ModelError
from tests.export.gguf_models import (
    READ_BACK,
    SPLITS,
    TEMPLATE,
    TEXTS,
    VOCABULARY,
    pieces_tokenizer,
    save,
    tokenizer_of,
)
from tests.text.tokenizers_by_family import tokenizer_of as family_tokenizer


def tree_of(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())


def changed(change, split="gpt-2", **options):
    """A tokenizer after `change(tree of its tokenizer.json)`."""
    tree = tree_of(tokenizer_of(split))
    change(tree)
    backend = Tokenizer.from_str(json.dumps(tree))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|im_end|>", **options
    )


@pytest.fixture(scope="module", params=SPLITS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save(folder / "base", "llama", request.param)
    return request.param, export_gguf(folder / "base", folder / "out").path


def test_every_token_its_type_and_the_merges(exported):
    split, path = exported
    tokenizer, reader = tokenizer_of(split), GGUFReader(path)

    def field(name):
        return reader.get_field(f"tokenizer.{name}").contents()

    tokens, types = field("ggml.tokens"), field("ggml.token_type")
    assert field("ggml.model") == "gpt2"
    assert field("ggml.pre") == split
    assert len(tokens) == len(types) == VOCABULARY
    assert {token: index for index, token in enumerate(tokens[: len(tokenizer)])} == tokenizer.get_vocab()
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if index >= len(tokenizer):
            assert kind == TokenType.UNUSED
        elif token in tokenizer.all_special_tokens or token == "<|im_start|>":
            assert kind == TokenType.CONTROL
        elif token in ("<think>", "</think>"):
            assert kind == TokenType.USER_DEFINED
        else:
            assert kind == TokenType.NORMAL
    merges = [tuple(merge) for merge in tree_of(tokenizer)["model"]["merges"]]
    assert [tuple(merge.split(" ")) for merge in field("ggml.merges")] == merges
    assert field("ggml.bos_token_id") == tokenizer.bos_token_id
    assert field("ggml.eos_token_id") == field("ggml.eot_token_id") == tokenizer.eos_token_id
    assert field("ggml.padding_token_id") == tokenizer.pad_token_id
    assert field("ggml.add_bos_token") is False
    assert field("chat_template") == TEMPLATE


@pytest.fixture(scope="module")
def read_back(tmp_path_factory):
    found = {}
    for split in READ_BACK:
        folder = tmp_path_factory.mktemp("back")
        save(folder / "base", "llama", split)
        path = export_gguf(folder / "base", folder / "out").path
        found[split] = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return found


@pytest.mark.parametrize("split", READ_BACK)
def test_transformers_reads_the_same_tokenizer(split, read_back):
    for text in TEXTS:
        ids = tokenizer_of(split)(text)["input_ids"]
        assert read_back[split](text)["input_ids"] == ids
        assert read_back[split].decode(ids) == tokenizer_of(split).decode(ids)


@pytest.mark.parametrize("split", [split for split in READ_BACK if split != "qwen2"])  # no NFC in the file
@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=60))
def test_any_text_gives_the_same_tokens(split, read_back, text):
    assert read_back[split](text)["input_ids"] == tokenizer_of(split)(text)["input_ids"]


def test_a_bos_that_the_tokenizer_adds_is_asked_for():
    without = {"eos": False, "space_prefix": False}
    assert read_vocabulary(tokenizer_of("llama-bpe", adds_bos=True), 704).adds == {"bos": True, **without}
    assert read_vocabulary(tokenizer_of("llama-bpe"), 704).adds == {"bos": False, **without}


def test_the_end_of_a_turn_beside_the_end_of_text():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of("qwen2").backend_tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_end|>"],
        chat_template=TEMPLATE,
    )
    ids = read_vocabulary(tokenizer, 704).ids
    assert ids["eos"] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert ids["eot"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert "bos" not in ids


def test_no_template_is_no_template():
    vocabulary = read_vocabulary(changed(lambda tree: None), 704)
    assert vocabulary.template is None
    assert "eot" not in vocabulary.ids


@pytest.mark.parametrize("family", ["llama2", "mistral", "gemma"])
def test_sentencepiece_that_cuts_text_otherwise_is_refused(family):
    tokenizer = family_tokenizer(family)
    with pytest.raises(ModelError, match=r"Metaspace.*convert_hf_to_gguf"):
        read_vocabulary(tokenizer, 2000)


@pytest.mark.parametrize(("family", "blank"), [("llama2", True), ("gemma", False)])
def test_sentencepiece_has_scores_and_bytes(family, blank):
    tokenizer = pieces_tokenizer(family)
    found = read_vocabulary(tokenizer, VOCABULARY)
    assert (found.model, found.split, found.merges) == ("llama", "default", [])
    assert found.adds == {"bos": True, "eos": False, "space_prefix": blank}
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert kinds["<0x0A>"] == TokenType.BYTE
    assert kinds["<unk>"] == TokenType.UNKNOWN
    assert kinds["<|im_end|>"] == TokenType.CONTROL
    merges = [tuple(merge) for merge in tree_of(tokenizer)["model"]["merges"]]
    scores = dict(zip(found.tokens, found.scores, strict=True))
    order = [scores[left + right] for left, right in merges]
    assert order == sorted(order, reverse=True)


def test_merges_that_scores_can_not_say():
    def learnt(tree):
        tree["model"]["merges"].pop()

    def apart(tree):
        made = ["".join(merge) for merge in tree["model"]["merges"]]
        twice = next(index for index in range(1, len(made)) if made[index] == made[index - 1])
        tree["model"]["merges"].append(tree["model"]["merges"].pop(twice))

    for change, said in ((learnt, "stay apart"), (apart, "don't follow one another")):
        tree = tree_of(pieces_tokenizer("llama2"))
        change(tree)
        backend = Tokenizer.from_str(json.dumps(tree))
        with pytest.raises(ModelError, match=said):
            read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"), 704)


def lowercase(tree):
    tree["normalizer"] = {"type": "Lowercase"}


def other_regex(tree):
    tree["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|."


def blank_before(tree):
    tree["pre_tokenizer"]["add_prefix_space"] = True


def whole_words(tree):
    tree["model"]["ignore_merges"] = True


def swallowing(tree):
    tree["added_tokens"][-1]["lstrip"] = True


def dropping(tree):
    tree["model"]["dropout"] = 0.1


@pytest.mark.parametrize(
    ("change", "split", "said"),
    [
        (lowercase, "gpt-2", "Lowercase"),
        (other_regex, "qwen2", "none of gpt-2, smollm, qwen2"),
        (blank_before, "gpt-2", "none of gpt-2"),
        (whole_words, "qwen2", "ignore_merges: True"),
        (swallowing, "gpt-2", "swallows blanks"),
        (dropping, "gpt-2", "dropout=0.1"),
    ],
)
def test_rules_that_llama_cpp_has_no_name_for(change, split, said):
    with pytest.raises(ModelError, match=said):
        read_vocabulary(changed(change, split), 704)


def test_more_tokens_than_rows_and_tokens_spelt_alike():
    with pytest.raises(ModelError, match="no row in the embedding of 100"):
        read_vocabulary(tokenizer_of("gpt-2"), 100)
    tokenizer = changed(lambda tree: None)
    tokenizer.backend_tokenizer.add_tokens([AddedToken("[PAD700]", special=False)])
    with pytest.raises(ModelError, match="spelt alike"):
        read_vocabulary(tokenizer, 704)
