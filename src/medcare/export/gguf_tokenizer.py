"""A tokenizer in GGUF: the vocabulary, its merges, the control tokens, how text is split, the chat template.

llama.cpp has code of its own for every way of splitting text before the merges, and finds it by a name. With
a wrong name it makes other tokens and says nothing, so the name is told from the tokenizer's own rules, and
rules that llama.cpp has no name for are refused. It applies no Unicode normalisation: where the tokenizer
normalises to NFC, text that is not in NFC already gets other tokens there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from medcare.foundation.errors import ModelError
from medcare.text.chat_template import end_of_turn

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_ENDS}"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_ENDS}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# (steps before the merges, whether a word of the vocabulary is taken whole, unmerged): llama.cpp's name.
_SPLITS = {
    ((("bytes", True),), False): "gpt-2",
    ((("digits", True), ("bytes", True)), False): "smollm",
    ((("split", _QWEN2), ("bytes", False)), False): "qwen2",
    ((("split", _LLAMA3), ("bytes", False)), True): "llama-bpe",
    ((("split", _LLAMA3), ("bytes", False)), False): "smaug-bpe",
    ((("split", _TEKKEN), ("bytes", False)), True): "tekken",
}
_ADVICE = "Export the whole model (--format merged) and try llama.cpp's convert_hf_to_gguf.py on that folder."


@dataclass(frozen=True)
class GgufVocabulary:
    """A tokenizer as GGUF writes it.

    Attributes:
        model: `gpt2` for byte-level BPE, `llama` for SentencePiece.
        tokens: one a row of the embedding; bytes are spelt in GPT-2's alphabet, added tokens as they are.
        types: of each token, a `gguf.TokenType`.
        ids: of `bos`, `eos`, `eot` (end of turn), `unk` and `pad`, as far as there are any.
        adds: whether every text gets a `bos` before and an `eos` after it, and a blank (`space_prefix`).
        template: the chat template.
        merges: of BPE: pairs, first to last, with a blank in between.
        scores: of SentencePiece, a number for each token: of two that could be made, the one of the higher
            score is.
        split: llama.cpp's name of the rules before the merges.
        notes: sentences about texts that get other tokens there.
    """

    model: Literal["gpt2", "llama"]
    tokens: list[str]
    types: list[int]
    ids: dict[str, int]
    adds: dict[str, bool]
    template: str | None
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    split: str = "default"
    notes: tuple[str, ...] = ()


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> GgufVocabulary:
    """Read a tokenizer.

    Args:
        tokenizer: byte-level BPE, or SentencePiece's as BPE with byte fallback, of the `tokenizers` package.
        rows: of the embedding. Rows without a token are filled up with unused ones.

    Raises:
        ModelError: it is of another kind, or does what llama.cpp has no way to do.
    """
    if not tokenizer.is_fast:
        raise _refusal(f"{type(tokenizer).__name__} has no tokenizer.json")
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens, types = _tokens(tokenizer, rows)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    shared: dict[str, Any] = {
        "tokens": tokens,
        "ids": _special_ids(tokenizer, ends=isinstance(template, str)),
        "template": template,
    }
    adds = {**_added_around(tokenizer), "space_prefix": False}
    if not (tree["model"]["type"] == "BPE" and tree["model"].get("byte_fallback")):
        return GgufVocabulary(
            model="gpt2",
            types=types,
            merges=_merges(tree["model"]["merges"]),
            split=_split(tree),
            adds=adds,
            **shared,
        )
    prefix = _prefix(tree)
    note = "A text that begins with no control token gets no blank before it in llama.cpp, as it should have."
    return GgufVocabulary(
        model="llama",
        types=_piece_types(tokenizer, tokens, types),
        scores=_scores(tree, tokens),
        adds={**adds, "space_prefix": prefix == "always"},
        notes=(note,) if prefix == "first" else (),
        **shared,
    )


def write_vocabulary(writer: GGUFWriter, vocabulary: GgufVocabulary) -> None:
    """Put a vocabulary into the metadata of a file that is being written."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.adds["space_prefix"])
    else:
        writer.add_token_merges(vocabulary.merges)
    for name, token in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(vocabulary.adds["bos"])
    writer.add_add_eos_token(vocabulary.adds["eos"])
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _refusal(what: str) -> ModelError:
    return ModelError(f"This tokenizer can't be written to GGUF: {what}. {_ADVICE}")


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[list[str], list[int]]:
    """The spelling and the type of every row's token."""
    from gguf import TokenType

    spelt = {index: token for token, index in tokenizer.get_vocab().items()}
    if max(spelt) >= rows:
        raise _refusal(f"its token {max(spelt)} has no row in the embedding of {rows}")
    tokens = [spelt.get(index, f"[PAD{index}]") for index in range(rows)]
    types = [int(TokenType.NORMAL if index in spelt else TokenType.UNUSED) for index in range(rows)]
    for index, added in tokenizer.added_tokens_decoder.items():
        if added.lstrip or added.rstrip or added.single_word:
            raise _refusal(f"its token '{added.content}' swallows blanks or stands for whole words only")
        tokens[index] = added.content
        types[index] = int(TokenType.CONTROL if added.special else TokenType.USER_DEFINED)
    if len(set(tokens)) < rows or not all(tokens):
        raise _refusal("two of its tokens are spelt alike, or one is empty")
    return tokens, types


def _special_ids(tokenizer: PreTrainedTokenizerBase, *, ends: bool) -> dict[str, int]:
    """The ids of the special tokens; with `ends` also of the one that ends a turn of the chat template."""
    found = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    if ends:
        found["eot"] = end_of_turn(tokenizer) or found["eos"]
    return {name: int(token) for name, token in found.items() if token is not None}


def _added_around(tokenizer: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Whether the tokenizer puts `bos` before and `eos` after a text; found by trying."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a")
    for bos in (False, True):
        for eos in (False, True):
            before = [tokenizer.bos_token_id] if bos else []
            after = [tokenizer.eos_token_id] if eos else []
            if whole == [*before, *bare, *after]:
                return {"bos": bos, "eos": eos}
    raise _refusal(
        f"it makes {whole} of a text that is {bare}, which is more than a bos and an eos around it"
    )


def _split(tree: dict[str, Any]) -> str:
    """llama.cpp's name for what a tokenizer.json does; raises ModelError if there is none."""
    model, normalizer = tree["model"], tree["normalizer"]
    decoder = (tree["decoder"] or {}).get("type")
    if model["type"] != "BPE" or decoder != "ByteLevel":
        raise _refusal(
            "BPE is required, of bytes as in Llama 3 and Qwen or of SentencePiece as in Llama 2 and Gemma; "
            f"got {model['type']} with the decoder {decoder}"
        )
    if normalizer is not None and normalizer["type"] != "NFC":
        raise _refusal(f"llama.cpp does not change text as its normalizer {normalizer['type']} does")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise _refusal(f"it has {option}={model[option]!r}")
    steps = tuple(_steps(tree["pre_tokenizer"]))
    name = _SPLITS.get((steps, bool(model.get("ignore_merges"))))
    if name is None:
        shown = ", ".join(str(step[0]) for step in steps) or "none"
        raise _refusal(
            "it splits text in a way that is none of "
            f"{', '.join(_SPLITS.values())} (steps: {shown}; ignore_merges: {model.get('ignore_merges')})"
        )
    return name


def _steps(pre: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """The steps of a pre-tokenizer, with what tells them apart."""
    if pre is None:
        return []
    match pre["type"]:
        case "Sequence":
            return [step for part in pre["pretokenizers"] for step in _steps(part)]
        case "ByteLevel" if not pre["add_prefix_space"]:
            return [("bytes", pre["use_regex"])]
        case "Digits":
            return [("digits", pre["individual_digits"])]
        case "Split" if pre["behavior"] == "Isolated" and not pre["invert"] and "Regex" in pre["pattern"]:
            return [("split", pre["pattern"]["Regex"])]
        case other:
            return [(other, json.dumps(pre))]


def _merges(merges: list[Any]) -> list[str]:
    """Merges as "left right"."""
    pairs = _pairs(merges)
    if not pairs or any(len(pair) != 2 or " " in "".join(pair) for pair in pairs):
        raise _refusal("it has no merges, or merges with blanks in them")
    return [" ".join(pair) for pair in pairs]


def _pairs(merges: list[Any]) -> list[tuple[str, ...]]:
    """Merges of either form of tokenizer.json."""
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def _prefix(tree: dict[str, Any]) -> str:
    """Where a SentencePiece tokenizer puts a blank before a text.

    Returns:
        `always`, after control tokens too; `first`, at the beginning of the whole; or `never`.

    Raises:
        ModelError: it changes or cuts text in another way than writing blanks as `▁`.
    """
    prefix = "never"
    steps = [tree["normalizer"], tree["pre_tokenizer"]]
    while steps:
        step = steps.pop(0)
        match step:
            case None:
                continue
            case {"type": "Sequence"}:
                steps += step.get("normalizers") or step.get("pretokenizers")
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                continue
            case {"type": "Prepend", "prepend": "▁"}:
                prefix = "always"
            case {"type": "Metaspace", "replacement": "▁", "split": False, "prepend_scheme": scheme}:
                prefix = scheme
            case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
                continue  # Gemma's: blanks are `▁` by then
            case _:
                raise _refusal(f"it has the step {json.dumps(step, ensure_ascii=False)}")
    return prefix


def _scores(tree: dict[str, Any], tokens: list[str]) -> list[float]:
    """The scores by which SentencePiece makes the tokens that the merges make.

    It joins any two neighbours whose text together is a token, best score first. So every such pair has to be
    a merge, and the merges of one token have to follow one another; that is so where merges were made out of
    scores, and not where they were learnt as merges.
    """
    added = {token["content"] for token in tree["added_tokens"]}
    known = tree["model"]["vocab"]
    pairs = _pairs(tree["model"]["merges"])
    order: dict[str, int] = {}
    before = None
    for left, right in pairs:
        made = left + right
        if made != before and made in order:
            raise _refusal(f"its merges into '{made}' don't follow one another, which scores can't say")
        order.setdefault(made, len(order))
        before = made
    there = set(pairs)
    for token in known:
        if token in added:
            continue
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair not in there and pair[0] in known and pair[1] in known:
                raise _refusal(f"'{pair[0]}' and '{pair[1]}' stay apart in it, and llama.cpp would join them")
    return [-float(order.get(token, len(order))) for token in tokens]


def _piece_types(tokenizer: PreTrainedTokenizerBase, tokens: list[str], types: list[int]) -> list[int]:
    """The types with SentencePiece's own: bytes, and the token for what is unknown."""
    from gguf import TokenType

    found = list(types)
    for index, token in enumerate(tokens):
        if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            found[index] = int(TokenType.BYTE)
    if tokenizer.unk_token_id is not None:
        found[int(tokenizer.unk_token_id)] = int(TokenType.UNKNOWN)
    return found
