"""The judge: a language model behind a server, and how it is asked for JSON.

What a server can't do (JSON Schema, `max_tokens`, a temperature) is found out by asking: a refused request
is put more simply, and what was accepted is used from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from medcare.evaluation.client import Client, ServerError, UnansweredError
from medcare.judging.rubric import scheme


@dataclass(frozen=True)
class Reply:
    """What the judge wrote.

    Attributes:
        text: its message, empty if there was none.
        cut: whether it ran into `max_tokens`.
        tokens_in: as the server counts them, 0 if it doesn't.
        tokens_out: likewise.
        form: how the request was put, see `RequestFormat.name`.
    """

    text: str
    cut: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    form: str = ""


@dataclass(frozen=True)
class RequestFormat:
    """How a request is put."""

    output: Literal["json_schema", "json_object", "text"] = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True

    def body(self, model: str, max_tokens: int, prompt: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The request's JSON."""
        messages = [{"role": "user", "content": prompt}]
        body: dict[str, Any] = {"model": model, "messages": messages, self.limit: max_tokens}
        if self.temperature:
            body["temperature"] = 0
        if self.output == "json_schema":
            verdict = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": verdict}
        elif self.output == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    @property
    def name(self) -> str:
        """For people: `json_schema, temperature 0`."""
        return f"{self.output}, temperature {'0' if self.temperature else 'of the server'}"

    def simpler(self, parameter: str) -> RequestFormat | None:
        """What to try after a refusal that names this parameter, or none; None if nothing is left."""
        if parameter == "max_tokens" and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if parameter == "temperature" and self.temperature:
            return replace(self, temperature=False)
        if self.output == "json_schema":
            return replace(self, output="json_object")
        return replace(self, output="text") if self.output == "json_object" else None


class Judge:
    """A model that is asked for verdicts.

    Attributes:
        client: of its server.
        model: its name there.
        max_tokens: longest reply; a judge that reasons first needs more than the default.
        form: how requests are put, as far as is known by now.
    """

    def __init__(self, client: Client, model: str, max_tokens: int = 512) -> None:
        self.client = client
        self.model = model
        self.max_tokens = max_tokens
        self.form = RequestFormat()

    def ask(self, prompt: str, schema: dict[str, Any] | None = None) -> Reply:
        """The judge's reply.

        Args:
            prompt: the message.
            schema: of the JSON that is wanted; by default four grades.

        Raises:
            UnansweredError: this prompt is refused, or the tries are used up.
            ServerError: no prompt would be answered: wrong key, address or model.
        """
        form: RequestFormat | None = self.form
        while form is not None:
            body = form.body(self.model, self.max_tokens, prompt, schema or scheme())
            try:
                reply = self.client.chat(self._reply, body)
            except ServerError as refusal:
                if not refusal.of_request:
                    raise
                quote = refusal.quote
                form = form.simpler(refusal.parameter)
            else:
                self.form = form
                return replace(reply, form=form.name)
        raise UnansweredError(f"The judge refused the request: {quote}.")

    def _reply(self, tree: Any) -> Reply:
        choice = tree["choices"][0]
        text = choice["message"].get("content")
        usage = tree.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        sent, received = (count if isinstance(count, int) else 0 for count in counts)
        said = self.client.without_key(text) if isinstance(text, str) else ""
        return Reply(said, choice.get("finish_reason") == "length", sent, received)
