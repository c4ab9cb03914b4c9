"""A served model: its engine, its tokenizer, and how text becomes a prompt."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from medcare.adapters.loading import load_model, tokenizer_of
from medcare.foundation.errors import ConfigError, ModelError
from medcare.foundation.paths import expanded
from medcare.foundation.progress import say
from medcare.generation.ending import answer_ends
from medcare.generation.engine import BatchingEngine
from medcare.generation.structure import Constraint, Grammars
from medcare.models.placement import placement_of
from medcare.settings.run_folder import plain_source
from medcare.text.chat_template import encode_text, render_answer, render_prompt
from medcare.text.control_tokens import OPEN
from medcare.text.records import Message
from medcare.text.thoughts import Thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ServedModel:
    """One model under the name by which requests ask for it.

    Attributes:
        name: the name.
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        engine: writes its answers.
        stop_ids: tokens that end its answers.
        temperature: of answers whose request doesn't set one: that of the model's generation settings, or 1
            as of OpenAI's models.
        top_p: likewise.
        top_k: likewise; 0 for all.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **limits: int
    ) -> None:
        """Prepare a loaded model; `limits` are those of `BatchingEngine`."""
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.engine = BatchingEngine(model, **limits)
        self.stop_ids = answer_ends(model, tokenizer)
        own: Any = model.generation_config
        self.temperature = 1.0 if own is None or own.temperature is None else float(own.temperature)
        self.top_p = 1.0 if own is None or own.top_p is None else float(own.top_p)
        self.top_k = 0 if own is None or own.top_k is None else int(own.top_k)
        # Fast tokenizers may not be called by two threads at once.
        self._lock = threading.Lock()
        self._grammars: Grammars | None = None

    @property
    def vocabulary(self) -> int:
        """How many token ids the model knows."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight.shape[0]

    def chat_prompt(self, messages: Sequence[Message], *, thinking: bool = False) -> list[int]:
        """Token ids up to where the answer begins; no text becomes a control token.

        Args:
            messages: the conversation so far.
            thinking: whether the answer is to begin with a thought, for templates that can be told.

        Raises:
            ModelError: the tokenizer has no chat template.
            DataError: the template refuses the order of the roles.
        """
        with self._lock:
            return render_prompt(self.tokenizer, messages, thinking=thinking)

    def answered(self, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """Token ids up to where the answer begins, and of this answer; raises as `chat_prompt`."""
        with self._lock:
            return render_answer(self.tokenizer, messages, answer)

    def text_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued, with the token that begins a text if the model has one."""
        with self._lock:
            start: Any = self.tokenizer("")["input_ids"]
            return [*start, *encode_text(self.tokenizer, text)]

    def thoughts(self, prompt: Sequence[int]) -> Thoughts:
        """What separates the thought of an answer to this prompt from the rest."""
        return Thoughts(opened=self.text(prompt[-8:]).rstrip().endswith(OPEN))

    def constraint(self, schema: dict[str, Any]) -> Constraint:
        """The constraint of one answer that has to follow a JSON schema; raises as `Grammars`."""
        with self._lock:
            if self._grammars is None:
                self._grammars = Grammars(self.tokenizer, self.vocabulary, self.stop_ids)
            return self._grammars.constraint(schema)

    def text(self, ids: Sequence[int]) -> str:
        """What token ids spell, without the control tokens among them."""
        with self._lock:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_one(
    name: str,
    folder: str,
    *,
    device: str,
    dtype: str,
    base: str | None = None,
    chat_template: str = "",
    **limits: int,
) -> ServedModel:
    """Load one model under a name; see `load_served`. A whole model has no base: naming one is an error."""
    if placement_of(device) == "split":
        raise ConfigError(
            "A model that is cut among processes answers test sets only (medcare evaluate). Serve it with "
            "--device spread, or with vLLM."
        )
    model = load_model(folder, device=device, dtype=dtype, noise=False, merge=True, base=base)
    return ServedModel(name, model, tokenizer_of(folder, chat_template, base=base), **limits)


def load_served(
    models: Sequence[str],
    *,
    device: str,
    dtype: str,
    base: str | None = None,
    chat_template: str = "",
    **limits: int,
) -> list[ServedModel]:
    """Load models given as `NAME=FOLDER` or `FOLDER`.

    Args:
        models: folders as `load_model` takes them; without a name, the last part of the path is it.
        device: as `ModelConfig.device`.
        dtype: as `ModelConfig.dtype`.
        base: where the base of the stage or PEFT folders among them is now; by default where it was.
        chat_template: as `ModelConfig.chat_template`.
        limits: as `BatchingEngine` takes them.

    Raises:
        ConfigError: two models have one name, a base is named and all of them are whole, or the device is
            none to serve on.
        ModelError: a folder holds no model; also AdapterError and FolderError, see `load_model`.
    """
    named = [_name(entry) for entry in models]
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Two models are called '{twice[0]}'. Name them apart: first=FOLDER second=FOLDER.")
    based = [folder for _, folder in named if plain_source(expanded(folder)) is None]
    served = []
    for name, folder in named:
        say(f"Loading {name} from {folder}")
        own = base if folder in based or not based else None
        served.append(
            load_one(
                name, folder, device=device, dtype=dtype, base=own, chat_template=chat_template, **limits
            )
        )
    return served


def _name(entry: str) -> tuple[str, str]:
    name, equals, folder = entry.partition("=")
    if not equals or expanded(entry).exists():
        name, folder = Path(entry.rstrip("/")).name, entry
    if not name or not folder:
        raise ModelError(f"'{entry}' names no model. Give a folder, a base name, or NAME=FOLDER.")
    return name, folder
