"""Asking a server with OpenAI's API: patient with its failures, careful with its key.

The one client, of the judge and of a tested model behind a server.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar

from medcare.foundation.errors import ConfigError, EvaluationError

T = TypeVar("T")
U = TypeVar("U")
# Far more than any answer or list of log-probabilities.
_LARGEST_BODY = 30_000_000
# A server that asks for a longer pause is not waited for.
_LONGEST_PAUSE = 600.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_LONGEST_QUOTE = 200
_NOT_ACCEPTED = (400, 413, 422, 501)
_PASSING = (408, 409, 425, 429)
_ADVICE = {
    401: "Its key is missing or wrong: --key-env, evaluation.api_key_env or a task's key_env names the "
    "environment variable that holds it",
    403: "The key may not use this model. Check the key and the model's name",
    404: "There is no such address or model. Check the address (it usually ends in /v1) and the model's name",
}


class ServerError(EvaluationError):
    """A server refuses a request, and would refuse it again.

    Attributes:
        quote: its answer, in a line.
        status: of HTTP.
        parameter: what it does not accept of the request, where it says so.
    """

    def __init__(self, message: str, quote: str, status: int, parameter: str = "") -> None:
        super().__init__(message)
        self.quote = quote
        self.status = status
        self.parameter = parameter

    @property
    def of_request(self) -> bool:
        """Whether another request could be accepted; else the key, the address or the model is wrong."""
        return self.status in _NOT_ACCEPTED


class UnansweredError(EvaluationError):
    """A request got no answer, however often it was tried; others may."""


class _PassingError(Exception):
    """What may pass: the request is worth another try, after at least `wait` seconds."""

    def __init__(self, quote: str, wait: float = 0.0) -> None:
        super().__init__(quote)
        self.wait = wait


class Client:
    """Requests to one server, from any thread, as a context.

    Attributes:
        url: its base address.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        tries: int = 6,
        timeout: float = 120.0,
        per_minute: float | None = None,
    ) -> None:
        """Check the address; nothing is sent.

        Args:
            url: the base, for example `http://localhost:8000/v1`.
            key: sent as a bearer token if not empty; kept out of every message.
            tries: how often a request is made before it is given up.
            timeout: seconds that a try may take.
            per_minute: most tries started in a minute, evenly spread; None: as many as come.

        Raises:
            ConfigError: the address is none, or the package that asks is missing.
        """
        try:
            _check_address(url)
            import openai
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"A model behind a server needs the package {error.name}. Install it with: "
                "pip install 'medcare[engines]'"
            ) from error
        self.url = url
        self._key = key
        self._tries = tries
        self._timeout = timeout
        self._limit = RateLimit(per_minute)
        self._draw = random.Random()
        self._lock = threading.Lock()
        self._under_way, self._closed = 0, False
        # Tries are counted here, so that a pause that the server asks for is every request's. A redirection
        # would carry the key elsewhere.
        self._headers: Any = {} if key else {"Authorization": openai.Omit()}
        self._server = openai.OpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def calls(self) -> int:
        """Requests sent so far."""
        return self._limit.turns

    def close(self) -> None:
        """Hang up: nothing more is asked, and the last request under way closes the connections."""
        with self._lock:
            self._closed = True
            idle = not self._under_way
        if idle:
            self._server.close()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """A try that is under way; one whose thread nobody waits for must leave no connection behind."""
        with self._lock:
            if self._closed:
                raise UnansweredError(f"{self.url} gave no answer: the connection was given up.")
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                last = self._closed and not self._under_way
            if last:
                self._server.close()

    def chat(self, read: Callable[[Any], T], body: Mapping[str, Any], **extra: Any) -> T:
        """What is read out of a chat completion.

        Args:
            read: takes the response, as JSON has it, apart; what it can't read is asked for again.
            body: of the request.
            extra: what the servers of some makers know beyond OpenAI's API.

        Raises:
            ServerError: the server refuses the request.
            UnansweredError: the tries are used up.
        """
        return self._ask(self._server.chat.completions, read, {**body, "extra_body": extra})

    def complete(self, read: Callable[[Any], T], body: Mapping[str, Any]) -> T:
        """As `chat`, of a completion."""
        return self._ask(self._server.completions, read, body)

    def models(self) -> list[str]:
        """The names of the server's models; raises as `chat`."""
        return self._ask(self._server.models, lambda tree: [str(model["id"]) for model in tree["data"]], {})

    def _ask(self, resource: Any, read: Callable[[Any], T], body: Mapping[str, Any]) -> T:
        import openai

        streaming = resource.with_streaming_response
        send = streaming.list if isinstance(resource, openai.resources.Models) else streaming.create
        for failures in range(1, self._tries + 1):
            self._limit.turn()
            try:
                with self._counted():
                    return self._try(send, read, body)
            except _PassingError as trouble:
                quote = str(trouble)
                if trouble.wait > _LONGEST_PAUSE:
                    break
                self._limit.hold(trouble.wait)
                if failures < self._tries:
                    time.sleep(max(trouble.wait, backoff(failures, self._draw)))
        raise UnansweredError(f"{self.url} gave no answer: {quote}.")

    def _try(self, send: Callable[..., Any], read: Callable[[Any], T], body: Mapping[str, Any]) -> T:
        import httpx2
        import openai

        try:
            with send(**body, extra_headers=self._headers) as response:
                data = self._received(response)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _PassingError(f"nothing within {self._timeout:g} s") from error
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            quote = self._in_a_line(f"{type(cause).__name__} {cause}".strip())
            raise _PassingError(
                f"it can't be reached ({quote}). Check the address, and that it runs"
            ) from error
        try:
            return read(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _PassingError(
                f"what came is something else than OpenAI's API sends ({type(error).__name__}). "
                "Check the address (it usually ends in /v1)"
            ) from error

    def _received(self, response: Any) -> bytes:
        """The body, unless it is huge or comes too slowly."""
        end = time.monotonic() + self._timeout
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > _LARGEST_BODY:
                raise _PassingError(f"the response has more than {_LARGEST_BODY:,} bytes")
            if time.monotonic() > end:
                raise TimeoutError
        return bytes(data)

    def _failure(self, error: Any) -> ServerError | _PassingError:
        status = error.status_code
        fault: dict[str, Any] = error.body if isinstance(error.body, dict) else {}
        quote = self._in_a_line(f"HTTP {status} {fault.get('message') or error.response.text}".strip())
        without_quota = fault.get("code") == "insufficient_quota"
        passes = status in _PASSING or (500 <= status < 600 and status not in _NOT_ACCEPTED)
        if passes and not without_quota:
            return _PassingError(quote, retry_after(error.response.headers.get("retry-after")))
        advice = (
            "The account has no quota left" if without_quota else _ADVICE.get(status, "Check the address")
        )
        if status in _NOT_ACCEPTED:
            advice = "The same command continues"
        message = f"{self.url} refused a request: {quote}. {advice}."
        return ServerError(message, quote, status, str(fault.get("param")))

    def _in_a_line(self, text: str) -> str:
        """What a server says, shortened and without the key."""
        line = " ".join(self.without_key(text).split()).rstrip(".")
        return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}…"

    def without_key(self, text: str) -> str:
        """A text in which the server may have repeated the key, without it; it can be written as UTF-8."""
        clean = text.encode("utf-8", "replace").decode()
        return clean.replace(self._key, "[key]") if self._key else clean


def _check_address(url: str) -> None:
    import httpx2

    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        address = httpx2.URL("")
    if address.scheme not in ("http", "https") or not address.host or address.query or address.fragment:
        raise ConfigError(
            "A server's address must be the base of an OpenAI-compatible API, for example "
            "http://localhost:8000/v1. Check --url, or the address after evaluate."
        )
    if address.userinfo:
        raise ConfigError(
            "A server's address must not hold a name or password. Put the key into an environment "
            "variable, and name that."
        )


class RateLimit:
    """When requests start: so many a minute, and not while the server asks for a pause.

    Attributes:
        turns: how many have started, or wait for their turn.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self.turns = 0
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._held = 0.0
        self._lock = threading.Lock()

    def turn(self) -> None:
        """Wait until a request may start."""
        with self._lock:
            self.turns += 1
            slot = max(time.monotonic(), self._next)
            self._next = slot + self._gap
        while (wait := max(slot, self._held) - time.monotonic()) > 0:
            time.sleep(wait)

    def hold(self, seconds: float) -> None:
        """Start nothing in the next `seconds`: the server has said so to one request, and means all."""
        self._held = max(self._held, time.monotonic() + seconds)


def backoff(failures: int, draw: random.Random) -> float:
    """Seconds to wait after so many failures of a request: doubled each time, at most a minute, and varied.

    The variation, from a half to the whole, keeps requests that failed together from coming back together.
    """
    longest = min(_FIRST_WAIT * 2.0 ** min(failures - 1, 30), _LONGEST_WAIT)
    return longest * (0.5 + draw.random() / 2)


def retry_after(header: str | None) -> float:
    """The seconds that a `Retry-After` header asks for (a number, or a date); 0 where it asks for nothing."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
            seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if seconds < float("inf") else 0.0


def ask_all(ask: Callable[[T], U], asked: Sequence[T], concurrency: int) -> Iterator[tuple[int, U]]:
    """Ask for all, so many at once.

    Whoever interrupts this need not wait for a server: the threads are no reason for the process to stay.

    Yields:
        The index of what was asked, and its answer, as they come.

    Raises:
        Exception: the first that `ask` raises; nothing is begun any more then.
    """
    waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, U | BaseException]] = queue.SimpleQueue()
    stopped = threading.Event()
    for index, question in enumerate(asked):
        waiting.put((index, question))

    def work() -> None:
        while not stopped.is_set():
            try:
                index, question = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answer: U | BaseException = ask(question)
            except BaseException as error:
                stopped.set()
                answer = error
            done.put((index, answer))

    for _ in range(min(concurrency, len(asked))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in asked:
            index, answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            yield index, answer
    finally:
        stopped.set()
