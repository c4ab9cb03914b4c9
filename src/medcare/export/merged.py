"""A stage folder as a plain Hugging Face folder: the branches folded into the weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from medcare.adapters.loading import load_model
from medcare.adapters.merge import merge_all
from medcare.export.card import write_card
from medcare.foundation.storage import storage_error
from medcare.models.base_model import choose_device, choose_dtype, describe, load_tokenizer
from medcare.settings.run_folder import claim, read_manifest, write_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def merge(folder: Path, out: Path) -> None:
    """Fold the branches of a stage folder into the weights and write a plain Hugging Face folder with a card.

    Raises:
        AdapterError: the folder has a noise aggregator, which can't be merged.
        MedCareError: the folder is not complete, `out` is in use, or the disk is full.
    """
    manifest = read_manifest(folder)
    settings = {"stage": "merged", "from": str(folder.resolve()), "source": manifest["result"]}
    config = manifest["config"]
    if claim(out, config, settings):
        return
    # In float32 whatever the training dtype was: rounding each merge to bfloat16 would lose the update.
    model = load_model(folder, device="cpu", dtype="float32")
    merge_all(model)
    dtype = choose_dtype(config.model.dtype, choose_device(config.model.device))
    model.to(dtype)  # type: ignore[arg-type]  # its stubs know no dtype here
    _save_plain(model, load_tokenizer(manifest["base"]), out)
    write_manifest(out, config, {**settings, "base": manifest["base"], "base_facts": describe(model)})
    write_card(out)


def _save_plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write model and tokenizer beside their place and move them there once they are whole."""
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            for path in Path(part).iterdir():
                path.replace(out / path.name)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error, such as a full disk
        raise storage_error(out, error) from error
