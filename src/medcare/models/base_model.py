"""The base model (embedded, a local folder or a hub id) and the dtype that the hardware computes in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from medcare.foundation.errors import ConfigError, MedCareError, ModelError, first_line
from medcare.foundation.hub import HubName
from medcare.foundation.outside import check_file
from medcare.foundation.paths import clue, expanded, missing
from medcare.models.embedded import embedded_folder
from medcare.models.hub_files import refusal_of, settings_of, weights_of
from medcare.models.model_files import TEXT, check_files, check_generation, measured, weight_names
from medcare.models.placement import Placed, Placement, input_device
from medcare.models.soundness import check_finite, check_loaded, fit_tokenizer, quiet_loading, unpacked
from medcare.settings.config import EMBEDDED
from medcare.settings.run_folder import PEFT_CONFIG

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_ADDRESS = re.compile(r"[\w.-]+:\d+(?:/\S*)?")  # localhost:8000
TEMPLATE = "chat_template.jinja"
"""The file that holds the chat template of a folder; the name is transformers'."""


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is the first accelerator, else the CPU.

    Raises:
        ModelError: there is no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device '{name}' can't be used here: {first_line(error)}. "
            "Try cpu (--device or model.device)."
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; `auto` is bfloat16 only where it is faster than float32.

    A processor without matrix units for bfloat16 emulates it, 30 times slower; one with AVX512-BF16 alone
    was measured slower than float32 too (203 against 290 tokens/s). AMX is the first that gains.
    """
    if name != "auto":
        return as_dtype(name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
    return torch.float32


def as_dtype(name: str) -> torch.dtype:
    """The dtype called `name`; raises ConfigError."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise ConfigError(f"'{name}' is no dtype. Choose one of {', '.join(known)}.")
    return known[name]


def base_dtype(name: str) -> torch.dtype:
    """The dtype in which a base's weights are stored; raises ModelError as `load_base`."""
    config = load_config(name)
    stated: Any = config.dtype or config.get_text_config().dtype
    if stated is not None:
        return stated if isinstance(stated, torch.dtype) else as_dtype(str(stated))
    with _explained(name):
        folder = weights_of(config._name_or_path)
        with safe_open(folder / weight_names(folder)[0], "pt") as stream:
            stored = [stream.get_slice(key).get_dtype() for key in stream.keys()]  # noqa: SIM118  # no dictionary
    return next(_STORED[kind] for kind in [*stored, "F32"] if kind in _STORED)


def resolve_base(name: str) -> str:
    """The folder or hub name behind a base name; `embedded` is converted into the cache at first use.

    Raises:
        ModelError: `name` looks like a folder that does not exist, or the embedded package is missing.
    """
    if name == EMBEDDED:
        return str(embedded_folder())
    path = expanded(name)
    try:
        problem = missing(path, "folder") if name and path.exists() else f"There is no model folder {name}"
        problem += "" if path.exists() else clue(name)
        if _ADDRESS.fullmatch(name):
            problem += f"; a model behind a server is named http://{name.partition('/')[0]}/v1#MODEL"
    except OSError:  # longer than any path
        problem = "A model folder of that name can't exist"
    else:
        if name and path.is_dir():
            return str(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or HubName.of(name) is None:
        raise ModelError(
            f"{problem}. Give a folder, a hub id such as Qwen/Qwen2.5-0.5B-Instruct, with a state of it as "
            f"OWNER/NAME@REVISION, or '{EMBEDDED}'."
        )
    return name


def load_config(name: str) -> PretrainedConfig:
    """The configuration of a causal language model, without its weights.

    Where it came from is its `_name_or_path`: a folder, or a hub's repository at a commit.

    Raises:
        ModelError: it can't be found, or is not a causal language model.
    """
    from transformers import AutoConfig

    with _explained(name):
        source, folder = _looked_at(name)
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config._name_or_path = source
        known = auto_class(config)
    if known is None:
        raise ModelError(
            f"{name} is a {config.model_type or 'model'}, not a causal language model known to transformers. "
            "MedCare adapts decoder-only models such as Qwen2, Llama, Mistral or Gemma."
        )
    return config


def skeleton(name: str) -> Any:
    """A base's modules and their shapes, without weights; raises ModelError as `load_config`."""
    config = load_config(name)
    with _explained(name), torch.device("meta"):
        return auto_class(config).from_config(config)


def positions_of(name: str) -> int | None:
    """The longest input, in tokens, that a model is made for; None if its folder does not say.

    A folder that holds a tokenizer alone has no such number, and needs none.
    """
    try:
        config = load_config(name).get_text_config()
    except ModelError:
        return None
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


def auto_class(config: PretrainedConfig) -> Any:
    """What makes a model of a configuration; of one for images, text goes through the language model alone.

    Returns:
        A class of transformers; None if it has no language model that writes from left to right.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto as known

    if type(config) in known.MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    # PaliGemma reads its prompt in both directions, and must be told which tokens are the prompt.
    is_other = config.is_encoder_decoder or config.model_type == "paligemma"
    if type(config) in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not is_other:
        return AutoModelForImageTextToText
    return None


def load_base(
    name: str, *, device: torch.device, dtype: torch.dtype, placement: Placement | None = None
) -> PreTrainedModel:
    """Load a causal language model from safetensors; no remote code is run.

    Args:
        name: as `resolve_base` takes it.
        device: where the model goes.
        dtype: of its weights.
        placement: for a model that no single device can hold, in the place of `device`.

    Raises:
        ConfigError: the placement needs a launcher, or can't have one.
        ModelError: it can't be found, is not a causal language model, has no safetensors weights, or is not
            whole: see `soundness`.
    """
    config = load_config(name)
    with _explained(name):
        if (settings_of(config._name_or_path)[1] / PEFT_CONFIG).is_file():
            raise ModelError(
                f"{name} holds a whole model (config.json) and an adapter (adapter_config.json), not saying "
                "which is meant. Give a folder or repository that holds the one."
            )
    placed = Placed(placement)
    with _explained(name), quiet_loading(), measured(name, folder := weights_of(config._name_or_path)):
        packing = unpacked(name, config)
        loading: Any = auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            adapter_kwargs={"local_files_only": True},  # it was looked for
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by `check_loaded`
            **packing,
            **placed.arguments,
        )
    model, info = loading
    model.name_or_path = model.config._name_or_path = config._name_or_path
    check_loaded(name, info, model)
    check_generation(name, model.generation_config)
    if packing:  # it is a plain model by now, and is saved as one
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    check_finite(name, model.state_dict().items())
    if placement is None:
        model.to(device)
    placed.settle(name, model)
    with _explained(name), torch.no_grad():  # numbers of a config that fit its tensors and not one another
        inputs = torch.zeros(1, 2, dtype=torch.long, device=input_device(model))
        model(input_ids=inputs, use_cache=False)
    loaded: PreTrainedModel = model
    return loaded


def generation_settings(source: str) -> Any:
    """What a model folder or hub id says about its answers, as `load_base` gives it to the model."""
    from transformers import GenerationConfig

    config = load_config(source)
    try:
        return GenerationConfig.from_pretrained(settings_of(config._name_or_path)[1])
    except OSError:  # no file of its own
        return GenerationConfig.from_model_config(config)


def load_tokenizer(name: str, chat_template: str = "") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base name or model folder.

    Args:
        name: the base or folder.
        chat_template: a file with the chat template to use instead of the tokenizer's own; empty for none.

    Raises:
        ModelError: as `load_base`.
        ConfigError: the file can't be read.
    """
    from transformers import AutoTokenizer

    template = _read_template(chat_template) if chat_template else None
    with _explained(name):
        source, folder = _looked_at(name)
        config = load_config(source) if (folder / "config.json").is_file() else None  # it may also lie alone
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer.name_or_path = source
        ids = tokenizer("Fever?", add_special_tokens=False)["input_ids"]
        tokenizer.decode(ids)  # what is wrong with it may show only at work
        if not ids:
            raise ModelError(
                f"The tokenizer of {name} makes no tokens of a text. Its vocabulary, or the steps of its "
                "tokenizer.json, leave nothing of it: take the file as it was published."
            )
        rows = None if config is None else getattr(config.get_text_config(), "vocab_size", None)
        if rows is not None:
            fit_tokenizer(name, tokenizer, rows)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _read_template(name: str) -> str:
    path = expanded(name)
    if path.exists():
        check_file(path, ConfigError, TEXT)
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The chat template {name} can't be read: {error}. Give a text file with a Jinja template."
        ) from error
    if not template.strip():
        raise ConfigError(f"The chat template {name} is empty. Give a text file with a Jinja template.")
    return template


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """The facts that say which base an adapter fits: written into manifests, compared at loading."""
    config = model.config.get_text_config()
    keys = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    return {key: getattr(config, key, None) for key in keys}


class _explained:
    """Turn the library's own errors about a model that can't be loaded into one sentence."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # What a folder holds is someone else's, and a library may stumble over it in any way, tokenizers by a
        # panic of Rust. Memory that runs out is not the folder's.
        if error is None or isinstance(error, MedCareError | MemoryError):
            return
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelError(
                f"{self._told(error)}. A folder with config.json, safetensors weights and a tokenizer is "
                f"required, or a hub id, or '{EMBEDDED}'."
            ) from error

    def _told(self, error: BaseException) -> str:
        """A path with one slash looks like a hub id: say first that there is no such folder."""
        path = expanded(self.name)
        if self.name == EMBEDDED or path.is_dir():
            return f"The model '{self.name}' can't be loaded: {_reason(error)}"
        there = f"There is no model folder {self.name}"
        if path.parent.is_dir():  # runs/none beside runs/demo
            return f"{there}, and the hub has no model of that name that can be had from here"
        return f"{there}, and as a hub id it can't be loaded: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """The first line of what a library says, and the next ones where the first only leads to them."""
    if reason := refusal_of(error):
        return reason
    lines = (str(error).strip() or type(error).__name__).splitlines()
    said = " ".join(lines[: 3 if lines[0].rstrip().endswith(":") else 1])
    return " ".join(said.split())[:300].rstrip(".")


def _looked_at(name: str) -> tuple[str, Path]:
    """As `settings_of`, for a base's name; the files are looked at before a library reads them."""
    source, folder = settings_of(resolve_base(name))
    check_files(folder)
    return source, folder
