"""A model as one GGUF file for llama.cpp and what is built on it, such as Ollama; with a card beside it.

What differs in the file from a Hugging Face folder: tensors have other names; the rows of a Llama's query and
key projections are reordered, since llama.cpp rotates neighbouring pairs of dimensions where transformers
rotates a head's halves; an output projection that is the embedding is left out. Norms and biases stay in
float32 whatever the type. Tensors are converted one by one while they are written, so that memory holds no
second copy of the model.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from medcare.adapters.loading import base_source, load_model, tokenizer_of
from medcare.adapters.merge import merge_all
from medcare.export.card import front_matter, shown_base, stages_behind, write_card
from medcare.export.gguf_architecture import (
    Architecture,
    architecture_of,
    context_length,
    rope_factors,
    write_hyperparameters,
)
from medcare.export.gguf_tokenizer import read_vocabulary, write_vocabulary
from medcare.foundation.contents import MANIFEST
from medcare.foundation.errors import AdapterError, ConfigError, ModelError
from medcare.foundation.paths import expanded
from medcare.foundation.storage import file_hash, write_atomic
from medcare.models.base_model import describe, load_config
from medcare.settings.config import ModelConfig, RunConfig
from medcare.settings.run_folder import (
    claim,
    last_stage,
    plain_source,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

Type = Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"]
NOTICE = "For research only. This is not a medical device and not for clinical decisions."
TYPES: tuple[Type, ...] = get_args(Type)
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_QUANTIZER = "llama-quantize"
"""llama.cpp's own program, which makes the types that the package gguf does not."""
_LARGEST = {"F16": 65504.0, "Q8_0": 127 * 65504.0}  # q8_0 has a float16 scale for every 32 weights


@dataclass(frozen=True)
class GgufFile:
    """What an export wrote.

    Attributes:
        path: the file.
        notes: sentences about what is not as one would expect.
    """

    path: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Origin:
    """What is exported.

    Attributes:
        manifest: its own; that of what this package did not train has no `stage`.
        stage_folder: the stage behind it.
        settings: the export's, for its manifest.
    """

    manifest: dict[str, Any]
    stage_folder: Path
    settings: dict[str, Any]


@dataclass(frozen=True)
class _FileTensor:
    """One tensor of the file: its name and type there, and its values in transformers' order of rows.

    Attributes:
        name: in the file.
        values: [o, i], or [o] of a norm or bias.
        kind: its type in the file.
        heads: how many heads the rows belong to, each of which is reordered; 0 leaves the rows as they are.
    """

    name: str
    values: Tensor
    kind: GGMLQuantizationType
    heads: int = 0


def export_gguf(folder: str | Path, out: Path, kind: Type = "f16", *, base: str | None = None) -> GgufFile:
    """Write the model of a folder as `out`/model-TYPE.gguf.

    A model that this package trained gets a card beside it; of a base as it came there is nothing to tell.

    Args:
        folder: whatever `load_model` reads; of a run folder without its merged model the last stage.
        out: the folder to write.
        kind: of the weights. Where q8_0 is asked for, a tensor whose rows are no multiple of 32 is f16. Fewer
            bits are made from an f16 file by llama.cpp's own `llama-quantize`.
        base: where the base of a stage or PEFT folder is now; by default where it was.

    Raises:
        ModelError: the architecture or the tokenizer is none that is written, a weight does not fit `kind`,
            or the package gguf or llama.cpp's program is missing.
        AdapterError: the folder has a noise aggregator, or is an adapter that is no whole model.
        MedCareError: the folder is not complete, `out` is in use, or the disk is full.
    """
    _check_request(out, kind)
    if plain_source(expanded(folder)) is None:
        folder = last_stage(expanded(folder))
    origin = _origin(folder, kind)
    manifest, settings = origin.manifest, origin.settings
    config = load_config(base_source(folder, base=base))
    architecture = architecture_of(config)
    vocabulary = read_vocabulary(tokenizer_of(folder, base=base), config.vocab_size)
    run, path = manifest["config"], out / f"model-{kind}.gguf"
    if out.exists() and claim(out, run, settings):  # said before the model is loaded
        return GgufFile(path)
    model = load_model(folder, device="cpu", dtype="float32", base=base)
    merge_all(model)
    plain: Type = kind if kind in _FILE_TYPES else "f16"
    tensors = list(_file_tensors(model, architecture, plain))
    claim(out, run, settings)
    front = front_matter({**manifest, "stage": "gguf"}, stages_behind(origin.stage_folder))

    def write(part: Path) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(part, architecture.name)
        try:
            _describe(writer, manifest, front, plain)
            write_hyperparameters(writer, config)
            write_vocabulary(writer, vocabulary)
            _write_tensors(writer, tensors)
        finally:
            writer.close()
        if plain != kind:
            _quantize(part, kind)

    write_atomic(path, write)
    facts = {"base": manifest["base"], "base_facts": describe(model), "sha256": file_hash(path)}
    write_manifest(out, run, {**settings, **facts})
    if "stage" in manifest:
        write_card(out, source=origin.stage_folder)
    notes = _notes(tensors, context_length(config), config.max_position_embeddings, kind)
    return GgufFile(path, (*vocabulary.notes, *notes))


def _quantize(path: Path, kind: Type) -> None:
    """Put a file of fewer bits in the place of one in f16."""
    smaller = path.with_suffix(f".{kind}.part")
    try:
        done = subprocess.run([_QUANTIZER, path, smaller, kind.upper()], capture_output=True, text=True)
        if done.returncode or not smaller.is_file():
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            raise ModelError(f"llama.cpp's {_QUANTIZER} can't make {kind}: {said[-1]}. Try --type q8_0.")
        smaller.replace(path)
    finally:
        smaller.unlink(missing_ok=True)


def _check_request(out: Path, kind: Type) -> None:
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            "GGUF files need the package gguf. Install it with: pip install 'medcare[gguf]'"
        ) from error
    if kind not in _FILE_TYPES and shutil.which(_QUANTIZER) is None:
        raise ModelError(
            f"--type {kind} is made by llama.cpp's {_QUANTIZER}, which is not installed. Install llama.cpp, "
            f"or export with --type f16 and run where it is: {_QUANTIZER} model-f16.gguf model-{kind}.gguf "
            f"{kind.upper()}"
        )
    if out.suffix == ".gguf":
        raise ConfigError(
            f"--out is a folder, which gets the file, its card and its manifest; got {out}. "
            f"Try --out {shlex.quote(str(out.with_suffix('')))}"
        )


def _origin(folder: str | Path, kind: Type) -> _Origin:
    """What a folder or a base name stands for; raises AdapterError for alignment alone."""
    path = expanded(folder)
    plain = plain_source(path)
    if plain is not None and path.is_dir():
        path = Path(plain)  # a run folder's merged model
    name = str(path.resolve()) if path.is_dir() else str(folder)
    if not (path / MANIFEST).is_file():
        manifest: dict[str, Any] = {"config": RunConfig(model=ModelConfig(base=name)), "base": name}
        return _Origin(manifest, path, {"stage": "gguf", "from": name, "type": kind})
    manifest = read_manifest(path)
    if manifest.get("parts") == "alignment":
        raise AdapterError(
            f"{path} holds alignment alone, which is no model. Export the stage folder itself."
        )
    stages = path if manifest.get("stage") in ("aggregate", "align") else Path(manifest.get("from") or path)
    settings = {
        "stage": "gguf",
        "from": name,
        "type": kind,
        "source": manifest.get("result") or manifest.get("source"),
        "parts": manifest.get("parts", "both"),
    }
    return _Origin(manifest, stages, settings)


def _file_tensors(model: PreTrainedModel, architecture: Architecture, kind: Type) -> Iterator[_FileTensor]:
    """The tensors of the file.

    Raises:
        ModelError: one has no name in GGUF, is not finite, or is too large for its type.
    """
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map

    config: Any = model.config
    names = get_tensor_name_map(MODEL_ARCH[architecture.name.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, values in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        named = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if named is None:
            raise ModelError(
                f"The tensor {name} has no name in GGUF's {architecture.name}: it is not written."
            )
        of_file = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType[kind.upper()]
        if of_file == GGMLQuantizationType.Q8_0 and values.shape[-1] % 32:
            of_file = GGMLQuantizationType.F16
        if architecture.gemma and name.endswith("norm.weight"):
            values = values + 1
        _check_values(name, values, of_file)
        reordered = heads.get(name.split(".")[-2], 0) if architecture.pairs else 0
        yield _FileTensor(named, values, of_file, reordered)
    factors = rope_factors(model)
    if factors is not None:
        yield _FileTensor("rope_freqs.weight", factors, GGMLQuantizationType.F32)


def _check_values(name: str, values: Tensor, kind: GGMLQuantizationType) -> None:
    """Refuse a tensor that would become nan or infinite; raises ModelError."""
    largest = float(values.abs().max())
    if not largest <= _LARGEST.get(kind.name, 3.4e38):  # also if it is nan
        raise ModelError(
            f"The tensor {name} has a value of {largest}, which {kind.name.lower()} can't hold. "
            + ("Try --type bf16." if kind.name in _LARGEST and largest < 3.4e38 else "The model is damaged.")
        )


def _write_tensors(writer: GGUFWriter, tensors: Sequence[_FileTensor]) -> None:
    """Write header, metadata and tensors; one tensor is in memory in its new form at a time."""
    import numpy as np
    from gguf.quants import quant_shape_to_byte_shape, quantize

    for tensor in tensors:
        size = int(np.prod(quant_shape_to_byte_shape(tensor.values.shape, tensor.kind)))
        writer.add_tensor_info(
            tensor.name, tensor.values.shape, np.dtype(np.float32), size, raw_dtype=tensor.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        values: NDArray[np.float32] = _reordered(tensor.values, tensor.heads).float().contiguous().numpy()
        writer.write_tensor_data(quantize(values, tensor.kind))


def _reordered(values: Tensor, heads: int) -> Tensor:
    """Rows [h * d] of every head with its two halves interleaved: 0, d/2, 1, d/2 + 1, ..."""
    if not heads:
        return values
    reordered: Tensor = values.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    return reordered


def _describe(writer: GGUFWriter, manifest: dict[str, Any], front: dict[str, Any], kind: Type) -> None:
    """The metadata that people read: name, notice, licence, base, languages; and the type of the weights."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    base = front.get("base_model") or shown_base(manifest["base"])
    short = base.rpartition("/")[2]
    trained = "stage" in manifest
    writer.add_type("model")
    writer.add_name(f"{short} (MedCare)" if trained else short)
    what = f"{short} fine-tuned for medical questions and forms with MedCare" if trained else short
    writer.add_description(f"{what}. {NOTICE}")
    writer.add_license(front["license"])
    if "license_name" in front:
        writer.add_license_name(front["license_name"])
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, short)
    if "base_model" in front:
        writer.add_base_model_organization(0, base.partition("/")[0])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{base}")
    if trained:
        writer.add_tags(front["tags"])
        if "language" in front:
            writer.add_languages(front["language"])
    writer.add_file_type(LlamaFileType[_FILE_TYPES[kind]])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _notes(tensors: Sequence[_FileTensor], length: int, full: int, kind: Type) -> Iterator[str]:
    plain = [tensor.name for tensor in tensors if kind == "q8_0" and tensor.kind.name == "F16"]
    if plain:
        shown = ", ".join(plain[:3]) + (", ..." if len(plain) > 3 else "")
        yield f"{len(plain)} tensors are f16, since their rows are no multiple of 32: {shown}."
    if length < full:
        yield f"The context is {length} tokens, the sliding window's length, which llama.cpp does not know."
