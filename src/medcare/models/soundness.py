"""Faults of a base that would otherwise show in nothing but worse answers.

transformers fills tensors that it does not find with random numbers and goes on; a token without a row in
the embedding fails in the middle of a run, on a GPU without a word that explains it; a value that is not a
number makes every answer one token repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medcare.foundation.errors import ModelError
from medcare.foundation.progress import say

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_UNPACKABLE = ("fp8", "mxfp4")  # DeepSeek and Qwen; gpt-oss
_CHUNK = 1 << 24
"""How many values are checked at a time; the check takes a byte for each."""


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Within the block, transformers prints no tables of what did not fit; `check_loaded` says it."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_no_report)


def _no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def unpacked(name: str, config: PretrainedConfig) -> dict[str, Any]:
    """What to load a base with, so that its weights are plain numbers.

    Returns:
        Arguments of `from_pretrained`: none for a base in full precision; the order to unpack for one in FP8
        or MXFP4.

    Raises:
        ModelError: the weights are packed for good (GPTQ, AWQ, bitsandbytes and others).
    """
    stored: Any = getattr(config, "quantization_config", None)
    if stored is None:
        return {}
    from transformers.quantizers.auto import AutoQuantizationConfig

    entries = stored if isinstance(stored, dict) else stored.to_dict()
    method = str(getattr(entries.get("quant_method"), "value", entries.get("quant_method")))
    if method in _UNPACKABLE:
        return {"quantization_config": AutoQuantizationConfig.from_dict({**entries, "dequantize": True})}
    raise ModelError(
        f"The weights of {name} are packed ({method}), and branches can't be merged into packed weights. "
        "Give the base that it was made from, in full precision; for training, "
        "--set model.quantization=nf4 packs that one."
    )


def check_loaded(name: str, info: dict[str, Any], model: PreTrainedModel) -> None:
    """Refuse a base that is not whole, and say what of its files is not used.

    Args:
        name: of the base.
        info: transformers' loading info. What is tied to another tensor is not missing.
        model: what was loaded.

    Raises:
        ModelError: tensors are missing or have another shape, or a part that the model has would lose some.
    """
    unused = sorted(info["unexpected_keys"])
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        key, stored, wanted = mismatched[0]
        raise ModelError(
            f"The files of {name} don't fit its config.json: {key} is {list(stored)} there and has to be "
            f"{list(wanted)}{_more(mismatched)}. The two belong to different models; download both again."
        )
    absent = sorted(info["missing_keys"])
    if absent:
        raise ModelError(
            f"{name} is not whole: its files lack {_list(absent)}, which would be random numbers. "
            + _instead(absent, unused)
        )
    parts = {part for root in (model, model.base_model) for part, _ in root.named_children()}
    dropped = [
        key for key in unused if key.removeprefix(f"{model.base_model_prefix}.").split(".")[0] in parts
    ]
    if dropped:
        raise ModelError(
            f"The files of {name} don't fit its config.json: they hold {_list(dropped)}, for which the "
            f"{type(model).__name__} that it describes has no place. Take the config.json of these weights."
        )
    if unused:
        say(f"{name}: its files hold what this model has no place for and does not use: {_list(unused)}.")


def check_finite(name: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors with values that are nan or infinite.

    Raises:
        ModelError: with the names of the first of them.
    """
    broken = [key for key, value in tensors if not _is_finite(value)]
    if broken:
        raise ModelError(
            f"{name} has values that are nan or infinite, in {_list(broken)}. The files are damaged, or the "
            "dtype can't hold what they say. Download or train it again, or take another dtype."
        )


def check_answer(logits: Tensor) -> None:
    """Refuse logits [.., v] of which none could be chosen; raises ModelError."""
    if not torch.isfinite(logits.amax(-1)).all():
        raise ModelError(
            "The model computes values that are nan or infinite, so that it has no answer. Try another dtype "
            "(float16 can't hold what bfloat16 can), or look at how it was trained."
        )


def fit_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse tokens that the embedding has no row for; a padding token among them gets another id.

    A special token that neither the tokenizer nor its template ever writes does no harm: Gemma 3's smallest
    model has one for images.

    Args:
        name: of the base.
        tokenizer: its `pad_token` may change.
        rows: of the embedding.

    Raises:
        ModelError: a token that can come up has no row.
    """
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not beyond:
        return
    ends = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token} - {None}
    if tokenizer.pad_token in beyond:
        inside = [token for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) if token]
        tokenizer.pad_token = next((token for token in inside if token not in beyond), None)
    added = tokenizer.added_tokens_decoder
    template = str(tokenizer.chat_template or "")
    harmful = sorted(
        (index, token)
        for token, index in beyond.items()
        if index not in added or not added[index].special or token in ends or token in template
    )
    if harmful:
        raise ModelError(
            f"The tokenizer of {name} has {len(harmful)} tokens beyond the {rows} rows of the embedding: "
            f"{_list([token for _, token in harmful])}. They were added without resizing the model: call "
            "model.resize_token_embeddings(len(tokenizer)) and save both, or take the tokens out."
        )


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() or value.is_meta:
        return True
    if hasattr(value, "to_local"):  # of a weight that is cut among processes, the part that is here
        value = value.to_local()
    return all(bool(torch.isfinite(part.float()).all()) for part in value.detach().flatten().split(_CHUNK))


def _instead(absent: Collection[str], unused: Collection[str]) -> str:
    """What the files have in a missing tensor's place, by the end of its name."""
    for key in absent:
        for other in unused:
            if other.endswith(key) or key.endswith(other):
                wrapped = "_orig_mod." in other
                return (
                    f"They have {other} in the place of {key}"
                    + (", since a compiled model was saved" if wrapped else "")
                    + ": save the model itself again, not what wraps it."
                )
    return "Download or save it again; config.json must be this model's own."


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + _more(names, 3)


def _more(names: Collection[Any], shown: int = 1) -> str:
    return f" and {len(names) - shown} more" if len(names) > shown else ""
