"""A plain Hugging Face folder that other programs read as this one does, whichever version wrote its base.

Training changes weights and nothing else. So the base's own config.json, generation_config.json and tokenizer
files stay as their makers wrote them: every program that reads the base reads the new model alike. What
transformers 5 writes by another name than transformers 4 is there under both names, since transformers 4,
vLLM, SGLang and llama.cpp's converter each look for one of them, and silently take a default where it is not.
"""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medcare.foundation.storage import read_json, write_folder
from medcare.generation.ending import answer_ends
from medcare.models.hub_files import own_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
# Read by tokenizers and processors of any age, and by no name that a class of transformers 5 would tell.
_BESIDE = (
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
# Of config.json: what is the new model's own, whatever the base's file says.
_OWN = ("architectures", "dtype", "torch_dtype", "transformers_version")
# Of the base's config.json: code that does not come along, and how weights were packed that no longer are.
_DROPPED = ("_name_or_path", "auto_map", "quantization_config")
# (base of the frequencies, share of a head that is rotated), where they were not called as everywhere else.
_OLD_NAMES = {
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
    "gpt_neox_japanese": ("rotary_emb_base", "rotary_pct"),
    "modernbert-decoder": ("global_rope_theta", "partial_rotary_factor"),
}
_OLD_LOCAL = {"modernbert-decoder": "local_rope_theta"}


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write a model without branches, and its tokenizer, into a folder; whole or not at all.

    Args:
        model: as it is to be written, dtype included. Where it was loaded from is where the base's own files
            are looked for.
        tokenizer: likewise.
        out: the folder; other files in it stay.

    Raises:
        StorageError: the disk is full, or the folder can't be written.
    """

    def write(part: Path) -> None:
        _write_weights(model, part)
        _edit(part / CONFIG, lambda new: _config(new, model))
        _edit(part / GENERATION, lambda new: _generation(new, model, tokenizer))
        tokenizer.save_pretrained(part)
        names = {*_BESIDE, *tokenizer.vocab_files_names.values()}
        folder = own_folder(tokenizer.name_or_path)
        for name in names:
            if folder is not None and (folder / name).is_file():
                shutil.copyfile(folder / name, part / name)
        _edit(part / TOKENIZER, lambda new: _tokenizer(new, tokenizer))

    write_folder(out, write)


def to_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring a model to a dtype, but for the few tensors that transformers keeps in float32 in every one."""
    kept = {
        name: value.clone()
        for name, value in [*model.named_parameters(), *model.named_buffers()]
        if any(part in name for part in model._get_dtype_plan(dtype))
    }
    model.to(dtype)  # type: ignore[arg-type]  # its stubs know no dtype here
    for name, value in kept.items():
        model.get_parameter_or_buffer(name).data = value.data


def _write_weights(model: PreTrainedModel, part: Path) -> None:
    from transformers import GenerationConfig

    # Some bases' own generation settings are refused when they are written, and this writes them by itself.
    settings, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.save_pretrained(part)
    finally:
        model.generation_config = settings


def _edit(path: Path, change: Any) -> None:
    tree = read_json(path) if path.is_file() else {}
    path.write_text(json.dumps(change(tree), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(source: str | None, name: str) -> dict[str, Any]:
    folder = own_folder(source)
    tree = read_json(folder / name) if folder is not None and (folder / name).is_file() else {}
    return tree if isinstance(tree, dict) else {}


def _config(new: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    config: PretrainedConfig = model.config
    base = _read(config._name_or_path, CONFIG)
    if base.get("model_type") != config.model_type:  # the language model of one that also sees or hears
        base = base.get("text_config") or {}
        base = base if base.get("model_type") == config.model_type else {}
    tree = _floats(_over(new, base))
    forms = both_forms(tree, config)
    return forms if _read_as(forms, config) else tree


def _read_as(tree: dict[str, Any], config: PretrainedConfig) -> bool:
    """Whether a config.json is read as this configuration; a family newer than the old names may not be."""
    try:
        read = type(config).from_dict(deepcopy(tree)).to_dict()  # it changes what it is given
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return _holds(read, {name: value for name, value in config.to_dict().items() if name not in _DROPPED})


def _holds(read: Any, wanted: Any) -> bool:
    """Whether every entry of `wanted` is in `read`, which may have the old names as entries of their own."""
    if isinstance(wanted, dict) and isinstance(read, dict):
        return all(_holds(read.get(name), value) for name, value in wanted.items() if name not in _OWN)
    return bool(read == wanted)


def _over(new: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The base's own entries, with those of `new` that it lacks and those that are the new model's."""
    own = {name: new[name] for name in _OWN if name in new}
    merged = {name: value for name, value in {**new, **base}.items() if name not in (*_OWN, *_DROPPED)} | own
    for name, value in base.items():
        if isinstance(value, dict) and isinstance(new.get(name), dict) and name.endswith("_config"):
            merged[name] = _over(new[name], value)
    return merged


def both_forms(tree: dict[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """A config.json of transformers 5 with the names that transformers 4 and other programs read as well."""
    rope = _old_rope(getattr(config, "rope_parameters", None) or {}, config)
    aliases = {
        old: tree[name] for old, name in config.attribute_map.items() if name in tree and old not in tree
    }
    forms = {**rope, **aliases, **tree}
    if "dtype" in forms:
        forms["torch_dtype"] = forms["dtype"]
    for name, value in tree.items():
        part: Any = getattr(config, name, None)
        if isinstance(value, dict) and hasattr(part, "attribute_map"):
            forms[name] = both_forms(value, part)
    return forms


def _old_rope(rope: dict[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """`rope_parameters` as top-level `rope_theta`, `rope_scaling` and what else they were called."""
    theta, share = _OLD_NAMES.get(config.model_type, ("rope_theta", "partial_rotary_factor"))
    full = rope
    old: dict[str, Any] = {}
    if isinstance(rope.get("full_attention"), dict):  # frequencies of their own for layers with a window
        full, local = rope["full_attention"], rope.get("sliding_attention") or {}
        if "rope_theta" in local:
            old[_OLD_LOCAL.get(config.model_type, "rope_local_base_freq")] = local["rope_theta"]
    if "rope_theta" not in full:
        return old
    old[theta] = full["rope_theta"]
    if full.get("partial_rotary_factor") is not None:
        old[share] = full["partial_rotary_factor"]
    named = ("rope_theta", "partial_rotary_factor", "type")
    scaling = {key: value for key, value in full.items() if key not in named}
    if hasattr(config, "original_max_position_embeddings"):  # it is there as well, and Phi-3's check counts
        scaling.pop("original_max_position_embeddings", None)
        scaling["type"] = scaling.pop("rope_type", "default")
    plain = set(scaling.values()) <= {"default"} if set(scaling) <= {"rope_type", "type"} else False
    return {**old, "rope_scaling": None if plain else scaling}


def _floats(value: Any) -> Any:
    """Infinity as a number, where transformers 5 writes an object that nobody else can read."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {key: _floats(entry) for key, entry in value.items()}
    return [_floats(entry) for entry in value] if isinstance(value, list) else value


def _generation(
    new: dict[str, Any], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """The base's own settings; an answer ends where the base ends it and where the template ends a turn."""
    base = _read(model.config._name_or_path, GENERATION)
    settings = base or (model.generation_config.to_diff_dict() if model.generation_config else {})
    ends = list(answer_ends(model, tokenizer))
    known = {name: value for name, value in _floats(settings).items() if name not in _DROPPED}
    written = {**known, **{name: new[name] for name in ("transformers_version",) if name in new}}
    return {**written, "eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else written


def _tokenizer(new: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    base = _read(tokenizer.name_or_path, TOKENIZER)
    written = {**new, **base}
    for name in ("is_local", "local_files_only", "name_or_path", "auto_map", "backend"):
        written.pop(name, None)
    if written.get("tokenizer_class") in (None, "TokenizersBackend"):  # a name that transformers 5 made up
        written["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = written.get("extra_special_tokens")
    if isinstance(extra, list):  # of transformers 5; in 4 this is an object
        written.pop("extra_special_tokens")
        written.setdefault("additional_special_tokens", extra)
    if tokenizer.pad_token is not None:  # the base's may have no row in its embedding
        written["pad_token"] = tokenizer.pad_token
    if isinstance(tokenizer.chat_template, str):  # beside chat_template.jinja, which not every program reads
        written["chat_template"] = tokenizer.chat_template
    return written
