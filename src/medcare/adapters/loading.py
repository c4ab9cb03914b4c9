"""Loading the model behind any folder that the package writes, with the tokenizer that belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcare.adapters.branch_files import load_branch
from medcare.adapters.branches import SPECS, stored_in
from medcare.adapters.merge import merge_branch, merge_unrouted
from medcare.adapters.peft_files import AdapterFile
from medcare.adapters.written_weights import write_into
from medcare.foundation.commands import argument, command, takes_kinds
from medcare.foundation.contents import MANIFEST
from medcare.foundation.errors import AdapterError, ConfigError, FolderError, ModelError
from medcare.foundation.outside import read_as
from medcare.foundation.paths import expanded
from medcare.foundation.progress import say
from medcare.models.base_model import (
    TEMPLATE,
    choose_device,
    choose_dtype,
    describe,
    load_base,
    load_config,
    load_tokenizer,
    resolve_base,
)
from medcare.models.identity import base_digest
from medcare.models.placement import is_offloaded, is_split, placement_of
from medcare.models.soundness import fit_tokenizer
from medcare.settings.config import AUTO, EMBEDDED
from medcare.settings.run_folder import CONFIG, PEFT_CONFIG, check, plain_source, read_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@takes_kinds
def load_model(
    folder: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    noise: bool = True,
    merge: bool = False,
    base: str | None = None,
) -> PreTrainedModel:
    """Load the model of any folder that this package writes, or of a base name.

    Args:
        folder: a stage folder (base with its branches; attention merged in a stage-2 folder), a merged
            folder, a run folder (its merged model), a PEFT LoRA folder, or a base name.
        device: as `ModelConfig.device`.
        dtype: as `ModelConfig.dtype`.
        noise: whether a stage-1 model keeps its noise aggregator. Without it, attention is merged too:
            this is the model that stage 2 starts from and that the evaluation calls `aggregate`.
        merge: whether to fold all other branches into the weights: faster, the same but for rounding, and
            nothing that could be trained on.
        base: where the base of a stage or PEFT folder is now; by default where it was.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: there is no such folder or base, or its branches can't be put onto weights that lie
            apart.
        AdapterError: the branches belong to another base.
        FolderError: the folder is not complete.
        ConfigError: `base` is given for what is a whole model; the device needs a launcher, or can't
            have one.
    """
    path = expanded(folder)
    placement = placement_of(device)
    where = choose_device(device if placement is None else AUTO)
    precision = choose_dtype(dtype, where)
    source = plain_source(path)
    _check_whole(path if source is None else Path(source))
    model = load_base(base_source(path, base=base), device=where, dtype=precision, placement=placement)
    if source is not None:
        plain: PreTrainedModel = model.eval()
        return plain
    if is_split(model) or is_offloaded(model):
        raise ModelError(
            f"{folder} has branches beside its base, and those can't be put onto weights that are "
            f"{'cut' if is_split(model) else 'partly in main memory or on the disk'}. Make one model of both "
            f"and use that: {command('merge', argument(folder), '--out', 'MODEL')}"
        )
    if (path / PEFT_CONFIG).is_file():
        load_branch(model, SPECS["knowledge"], path)
    else:
        manifest = _stage_manifest(path)
        _check_base(describe(model), manifest, path)
        _check_weights(manifest, path, base)
        _attach(model, path, manifest, noise=noise)
    if merge:
        merge_unrouted(model)
    adapted: PreTrainedModel = model.eval()
    return adapted


def tokenizer_of(
    folder: str | Path, chat_template: str = "", *, base: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the model of `load_model`.

    What a PEFT or stage folder has of its own, a tokenizer or only a chat template, wins over its base's.

    Args:
        folder: as `load_model`.
        chat_template: a file with a chat template that wins over all others; empty for none.
        base: as `load_model`.

    Raises:
        ConfigError: the file can't be read.
        MedCareError: as `load_model`.
    """
    path = expanded(folder)
    source = base_source(folder, base=base)
    if plain_source(path) is not None:
        return load_tokenizer(source, chat_template)
    template = chat_template or template_file(path)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return load_tokenizer(source, template)
    tokenizer = load_tokenizer(str(path), template)
    fit_tokenizer(str(path), tokenizer, load_config(source).get_text_config().vocab_size)
    return tokenizer


def template_file(folder: Path) -> str:
    """The file with a folder's own chat template; empty if it has none."""
    path = folder / TEMPLATE
    return str(path) if path.is_file() else ""


def base_source(folder: str | Path, *, base: str | None = None) -> str:
    """The folder or base name behind the model of `load_model`; raises alike."""
    path = expanded(folder)
    source = plain_source(path)
    if source is not None:
        if base is not None:
            raise ConfigError(
                f"--base goes with a stage or adapter folder; {folder} is a whole model. Leave --base out."
            )
        return source
    if base is not None:
        return base
    adapter = (path / PEFT_CONFIG).is_file()
    named = _peft_base(path) if adapter else str(_stage_manifest(path)["base"])
    try:
        resolve_base(named)
    except ModelError as error:
        raise ModelError(
            f"{folder} was trained on the base {named}, which is not there. Say where it is: --base PATH."
        ) from error
    return named


def _check_whole(folder: Path) -> None:
    """Refuse a folder whose files have changed, and one that a kill left before its manifest."""
    if (folder / CONFIG).is_file() and not (folder / MANIFEST).is_file():
        raise FolderError(
            f"{folder} has no {MANIFEST}: what wrote it was not finished. Call the same command again."
        )
    check(folder)


def _stage_manifest(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    if manifest["stage"] not in ("aggregate", "align"):
        raise FolderError(f"{path} holds no model yet: its {MANIFEST} names no finished stage and its base.")
    return manifest


def _attach(model: PreTrainedModel, path: Path, manifest: dict[str, Any], *, noise: bool) -> None:
    """Put a stage folder's branches onto its base: as they trained, or as stage 2 takes them over."""
    write_into(model, path)
    as_trained = manifest["stage"] == "aggregate" and noise
    for spec in stored_in(path):
        stays = as_trained or spec.in_align == "trains"
        if stays or spec.mergeable:
            load_branch(model, spec, path / spec.path, dropout=manifest["config"].adapters.dropout)
        if not stays and spec.mergeable:
            merge_branch(model, spec.name)


def _check_base(model_facts: dict[str, Any], manifest: dict[str, Any], folder: Path) -> None:
    """Refuse a base whose architecture differs from the one that the folder's branches were trained on."""
    made_for = manifest.get("base_facts", {})
    differing = [key for key, value in made_for.items() if model_facts.get(key) != value]
    if differing:
        details = ", ".join(
            f"{key} {str(made_for[key])[:40]} (this model: {model_facts.get(key)})" for key in differing
        )
        raise AdapterError(
            f"{folder} was trained on another base, {manifest.get('base')}: {details}. "
            "Load it on its own base."
        )


def _check_weights(manifest: dict[str, Any], folder: Path, base: str | None) -> None:
    """Refuse a base that has other weights than the branches were trained on, unless it is named."""
    former = manifest.get("base_sha256")
    if former is None or base_digest(base or manifest["base"]) == former:
        return
    told = f"{folder} was trained on other weights than {base or manifest['base']} has now"
    if base is None:
        raise AdapterError(f"{told}. Put the former ones back, or say where they are: --base PATH.")
    say(f"{told}: its answers are others than in training if more than the form of the files has changed.")


def _peft_base(path: Path) -> str:
    file = read_as(path / PEFT_CONFIG, AdapterFile, AdapterError)
    base = file.base_model_name_or_path
    if not base:
        raise FolderError(
            f"{path}/adapter_config.json names no base model (base_model_name_or_path). Add it."
        )
    on_hub = file.revision and base != EMBEDDED and not expanded(base).is_dir()
    return f"{base}@{file.revision}" if on_hub else base
