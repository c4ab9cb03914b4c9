"""Asking an OpenAI-compatible endpoint: patient with its failures, careful with its key.

What a server can't do (JSON Schema, `max_tokens`, a temperature) is found out by asking: a refused request
is put more simply, and what was accepted is used from then on.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

import httpx2
import openai

from medcare.foundation.errors import ConfigError, EvaluationError
from medcare.judging.pacing import Pace, backoff, retry_after
from medcare.judging.rubric import scheme
from medcare.judging.verdict import UnansweredError

# A completion with a verdict has about a kilobyte.
_LARGEST_BODY = 1_000_000
# A server that asks for a longer pause is not waited for.
_LONGEST_PAUSE = 600.0
_REFUSED = (400, 413, 422, 501)
_HOPELESS = {
    401: "it does not accept the key. Name the variable that holds it with --key-env",
    403: "the key may not use this model. Check the key and --model",
    404: "there is no such address or model. Check --url (it usually ends in /v1) and --model",
}


@dataclass(frozen=True)
class Endpoint:
    """Where the judge is, and how long to try.

    Attributes:
        url: the base, for example `http://localhost:8000/v1`.
        model: the judge's name there.
        key: sent as a bearer token if not empty; kept out of every file and message.
        max_tokens: longest reply; a judge that reasons first needs more than the default.
        timeout: seconds that one call may take, from its start to the last byte.
        tries: how often a call is made before the case is given up.
        first_wait: seconds before the second try, see `pacing.backoff`.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    max_tokens: int = 512
    timeout: float = 120.0
    tries: int = 6
    first_wait: float = 1.0

    def __post_init__(self) -> None:
        try:
            url = httpx2.URL(self.url)
        except (httpx2.InvalidURL, TypeError):
            url = httpx2.URL("")
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(
                "--url must be the base address of an OpenAI-compatible server, for example "
                "http://localhost:8000/v1."
            )
        if url.userinfo:
            raise ConfigError("--url must not hold a name or password. Give the key with --key-env.")
        if not all("!" <= letter <= "~" for letter in self.key):
            raise ConfigError("The key may only have visible ASCII characters. Check the variable's value.")


@dataclass(frozen=True)
class Reply:
    """What the judge wrote.

    Attributes:
        text: its message, empty if there was none.
        cut: whether it ran into `max_tokens`.
        tokens_in: as the server counts them, 0 if it doesn't.
        tokens_out: likewise.
        form: how the request was put, see `RequestForm.name`.
    """

    text: str
    cut: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    form: str = ""


@dataclass(frozen=True)
class RequestForm:
    """How a request is put."""

    output: Literal["json_schema", "json_object", "text"] = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True

    def body(self, endpoint: Endpoint, prompt: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The request's JSON."""
        tree: dict[str, Any] = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            self.limit: endpoint.max_tokens,
        }
        if self.temperature:
            tree["temperature"] = 0
        if self.output == "json_schema":
            form = {"name": "verdict", "strict": True, "schema": schema}
            tree["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self.output == "json_object":
            tree["response_format"] = {"type": "json_object"}
        return tree

    @property
    def name(self) -> str:
        """For people: `json_schema, temperature 0`."""
        return f"{self.output}, temperature {'0' if self.temperature else 'of the server'}"

    def simpler(self, parameter: str) -> RequestForm | None:
        """What to try after a refusal that names this parameter, or none; None if nothing is left."""
        if parameter == "max_tokens" and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        if parameter == "temperature" and self.temperature:
            return replace(self, temperature=False)
        if self.output == "json_schema":
            return replace(self, output="json_object")
        return replace(self, output="text") if self.output == "json_object" else None


class _RefusedError(Exception):
    def __init__(self, parameter: str, said: str) -> None:
        super().__init__(said)
        self.parameter = parameter


class _PassingError(Exception):
    """What may pass: the call is worth another try, after at least `wait` seconds."""

    def __init__(self, said: str, wait: float = 0.0) -> None:
        super().__init__(said)
        self.wait = wait


class Client:
    """Calls to one endpoint, as an asynchronous context.

    Attributes:
        form: how requests are put, as far as is known by now.
        calls: requests sent.
    """

    def __init__(self, endpoint: Endpoint, pace: Pace) -> None:
        self.endpoint = endpoint
        self.form = RequestForm()
        self.calls = 0
        self._pace = pace
        self._draw = random.Random()
        # Retries are made here, so that a pause that the server asks for is every call's; and a redirection
        # would carry the key elsewhere.
        self._headers: Any = {} if endpoint.key else {"Authorization": openai.Omit()}
        self._server = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key or "none",
            max_retries=0,
            timeout=endpoint.timeout,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close()

    async def ask(self, prompt: str, schema: dict[str, Any] | None = None) -> Reply:
        """The judge's reply.

        Args:
            prompt: the message.
            schema: of the JSON that is wanted; by default four grades.

        Raises:
            UnansweredError: this prompt is refused, or the tries are used up.
            EvaluationError: no prompt would be answered: wrong key, address or model.
        """
        form: RequestForm | None = self.form
        while form is not None:
            try:
                reply = await self._persist(form.body(self.endpoint, prompt, schema or scheme()))
            except _RefusedError as refusal:
                said = str(refusal)
                form = form.simpler(refusal.parameter)
            else:
                self.form = form
                return replace(reply, form=form.name)
        raise UnansweredError(f"The judge refused the request: {said}.")

    async def _persist(self, body: dict[str, Any]) -> Reply:
        for failures in range(1, self.endpoint.tries + 1):
            await self._pace.turn()
            try:
                return await self._call(body)
            except _PassingError as trouble:
                said = str(trouble)
                if trouble.wait > _LONGEST_PAUSE:
                    break
                self._pace.hold(trouble.wait)
                if failures < self.endpoint.tries:
                    wait = backoff(failures, self.endpoint.first_wait, self._draw)
                    await asyncio.sleep(max(trouble.wait, wait))
        raise UnansweredError(f"The judge gave no answer: {said}.")

    async def _call(self, body: dict[str, Any]) -> Reply:
        self.calls += 1
        try:
            async with asyncio.timeout(self.endpoint.timeout):
                create = self._server.chat.completions.with_streaming_response.create
                async with create(**body, extra_headers=self._headers) as response:
                    return self._read(await _limited(response))
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _PassingError(f"nothing within {self.endpoint.timeout:g} s") from error
        except openai.APIStatusError as error:
            self._fail(error)
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            raise _PassingError(self._shown(f"{type(cause).__name__} {cause}".strip())) from error
        raise AssertionError  # _fail always raises

    def _fail(self, error: openai.APIStatusError) -> None:
        status = error.status_code
        fault: dict[str, Any] = error.body if isinstance(error.body, dict) else {}
        said = self._shown(f"HTTP {status} {fault.get('message') or error.response.text}".strip())
        if status in _HOPELESS or fault.get("code") == "insufficient_quota":
            reason = _HOPELESS.get(status, "the account has no quota left")
            raise EvaluationError(f"The judge can't be used ({said}): {reason}.")
        if status in _REFUSED:
            raise _RefusedError(str(fault.get("param")), said)
        if status in (408, 409, 425, 429) or status >= 500:
            raise _PassingError(said, retry_after(error.response.headers.get("retry-after")))
        raise EvaluationError(f"The judge can't be used ({said}): an answer was expected. Check --url.")

    def _read(self, data: bytes) -> Reply:
        try:
            tree = json.loads(data)
            choice = tree["choices"][0]
            text = choice["message"].get("content")
            usage = tree.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _PassingError("the response is not a chat completion") from error
        sent, received = (count if isinstance(count, int) else 0 for count in counts)
        said = self._hidden(text) if isinstance(text, str) else ""
        return Reply(said, choice.get("finish_reason") == "length", sent, received)

    def _shown(self, text: str) -> str:
        """What a server says, in a line and without the key."""
        line = " ".join(self._hidden(text).split()).rstrip(".")
        return line if len(line) <= 200 else f"{line[:200]}…"

    def _hidden(self, text: str) -> str:
        clean = text.encode("utf-8", "replace").decode()
        return clean.replace(self.endpoint.key, "[key]") if self.endpoint.key else clean


async def _limited(response: Any) -> bytes:
    """The body, unless it is huge."""
    data = bytearray()
    async for part in response.iter_bytes():
        data += part
        if len(data) > _LARGEST_BODY:
            raise _PassingError(f"the response has more than {_LARGEST_BODY:,} bytes")
    return bytes(data)
