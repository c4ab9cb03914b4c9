"""What clients may send: OpenAI's requests, checked strictly.

A field that would change the answer and is not supported is refused, not ignored; fields that only describe
the client are accepted. `null` means that a field is not given, as in OpenAI's own API.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

MAX_ANSWERS = 8
MAX_ALTERNATIVES = 20
_MAX_TEXT = 400_000  # characters; far more than any context holds, and still quick to tokenise

Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=_MAX_TEXT)]


def only(*neutral: Any) -> BeforeValidator:
    """A field that is not supported, except for neutral values, which change nothing."""

    def check(value: Any) -> Any:
        if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral):
            return value
        shown = " or ".join(map(json.dumps, neutral))
        raise PydanticCustomError("unsupported", "{shown}", {"shown": shown})

    return BeforeValidator(check)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: field for name, field in value.items() if field is not None}
        return value


class TextPart(_Strict):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    """One turn; fields that OpenAI's client adds to an assistant's turn must be empty.

    An answer that a client sends back has its thought in `reasoning_content`.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=64)] = ""
    name: Annotated[str, Field(max_length=512)] | None = None
    reasoning_content: Text = ""
    tool_calls: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only()] = None
    refusal: Annotated[Any, only()] = None
    audio: Annotated[Any, only()] = None
    annotations: Annotated[Any, only([])] = None

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if "content" not in self.model_fields_set and self.role != "assistant":
            raise _missing("messages", f"messages: one of the role {self.role} needs content")
        return self

    @property
    def text(self) -> str:
        """The content as one text."""
        return (
            self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        )


class StreamOptions(_Strict):
    """What a stream holds besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(_Strict, ABC):
    """What both endpoints share."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    # Where a request does not say, the model's own generation settings do.
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] = 1
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] = Field(default_factory=list)
    # Only their neutral values are supported; the last four are vLLM's.
    presence_penalty: Annotated[Any, only(0)] = 0
    frequency_penalty: Annotated[Any, only(0)] = 0
    logit_bias: Annotated[Any, only({})] = None
    min_p: Annotated[Any, only(0)] = 0
    repetition_penalty: Annotated[Any, only(1)] = 1
    ignore_eos: Annotated[Any, only(False)] = False
    skip_special_tokens: Annotated[Any, only(True)] = True
    # These say something about the client and change no answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def longest(self) -> int | None:
        """The longest answer that is wanted, in tokens."""
        return self.max_tokens

    @property
    @abstractmethod
    def alternatives(self) -> int | None:
        """As `Sampling.alternatives`."""

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class JsonSchema(_Strict):
    """A schema that the answer has to follow; it always does, whatever `strict` says."""

    name: Annotated[str, Field(max_length=512)] = ""
    description: Text = ""
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = Field(default_factory=dict)
    strict: bool = True


class ResponseFormat(_Strict):
    """Plain text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise _missing("response_format", "response_format: the type json_schema goes with json_schema")
        return self


class TemplateSettings(_Strict):
    """What chat templates can be told: whether the answer is to begin with a thought, by either name."""

    enable_thinking: bool = False
    thinking: bool = False


class ChatRequest(GenerationRequest):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    chat_template_kwargs: TemplateSettings = Field(default_factory=TemplateSettings)
    tools: Annotated[Any, only([])] = None
    tool_choice: Annotated[Any, only("none", "auto")] = None  # without tools, both call none
    parallel_tool_calls: bool | None = None
    functions: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only("none", "auto")] = None
    modalities: Annotated[Any, only(["text"])] = None

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise _missing("top_logprobs", "top_logprobs needs logprobs: true")
        return self

    @property
    def thinks(self) -> bool:
        """Whether the answer is to begin with a thought, for templates that can be told."""
        return self.chat_template_kwargs.enable_thinking or self.chat_template_kwargs.thinking

    @property
    def schema_wanted(self) -> dict[str, Any] | None:
        """The JSON schema that the answer has to follow, if any."""
        asked = self.response_format
        if asked is None or asked.type == "text":
            return None
        return {"type": "object"} if asked.json_schema is None else asked.json_schema.schema_

    @property
    def longest(self) -> int | None:
        """The longest answer that is wanted, in tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """As `Sampling.alternatives`."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """The body of `POST /v1/completions`."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=64)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=64)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] | None = None
    echo: bool = False
    best_of: int | None = None

    @field_validator("best_of")
    @classmethod
    def _only_one(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise ValueError("best_of is not supported; use n")
        return value

    @model_validator(mode="after")
    def _nothing_needs_echo(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise _missing("max_tokens", "max_tokens: 0 needs echo: true, or there is nothing to answer")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Every prompt, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # the union says so
        return self.prompt

    @property
    def alternatives(self) -> int | None:
        """As `Sampling.alternatives`."""
        return self.logprobs


def _missing(field: str, message: str) -> PydanticCustomError:
    """An error for a field that needs another one."""
    return PydanticCustomError("missing_field", "{message}", {"message": message, "field": field})
