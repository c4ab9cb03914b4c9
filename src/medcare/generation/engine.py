"""Continuous batching: requests join a running batch between two decode steps, finished rows leave it.

Rows stand right-aligned in one key-value cache, each as long as its own text; columns to the left of a row
are masked. New requests are computed by themselves, a limited number of tokens a step, so that a long prompt
does not hold up the answers that are being written; then their cache is put beside that of the others.

It is the ordinary cache and the ordinary forward pass of transformers, so attention models work, on any
device. Models that remember a row in another way (recurrent ones) are served one request at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from medcare.foundation.errors import DataError, MedCareError
from medcare.generation.decoder import Decoder, keep_rows
from medcare.generation.requests import EngineRequest, Failed, Finished, PromptTokens, Sink, Token
from medcare.generation.sampling import Sampling, choose
from medcare.generation.scored_tokens import chosen_tokens, prompt_tokens
from medcare.models.soundness import check_answer

if TYPE_CHECKING:
    from medcare.generation.structure import Constraint


@dataclass
class _Group:
    """Requests whose keys and values are in one cache of `width` columns."""

    requests: list[EngineRequest]
    cache: Any  # a `DynamicCache`, or what `Decoder.read` remembers of its only row
    width: int
    alone: bool = False  # its only request is suspected of having made a step fail


class BatchingEngine:
    """Answers many requests at once with one model.

    `add` may be called from any thread, `step` from one only.

    Attributes:
        max_rows: most answers written at once.
    """

    def __init__(
        self, model: nn.Module, *, max_rows: int = 16, prefill_tokens: int = 256, cache_tokens: int = 32768
    ) -> None:
        """Prepare a model, which must be in evaluation mode.

        Args:
            model: a causal language model.
            max_rows: most answers written at once.
            prefill_tokens: most tokens of new prompts computed between two decode steps.
            cache_tokens: most tokens in the cache, padding included; while requests join, twice this.
        """
        self._decoder = Decoder.of(model)
        self.max_rows = max_rows if self._decoder.plain_cache else 1
        self._waiting: deque[EngineRequest] = deque()
        self._prefill_tokens = prefill_tokens
        self._cache_tokens = cache_tokens
        self._joining: _Group | None = None
        self._running: _Group | None = None
        self._suspects: deque[EngineRequest] = deque()
        self._reading: _Group | None = None  # the group that a failed step was reading

    @property
    def longest(self) -> int:
        """Most tokens of a prompt and its answer together."""
        limit = getattr(self._decoder.model.config.get_text_config(), "max_position_embeddings", None)
        return min(self._cache_tokens, limit or self._cache_tokens)

    @property
    def active(self) -> list[EngineRequest]:
        """The requests that have begun."""
        groups = [group.requests for group in (self._joining, self._running) if group]
        return [request for group in (*groups, self._suspects) for request in group]

    @property
    def waiting(self) -> list[EngineRequest]:
        """The requests that have not begun, oldest first."""
        return [request for request in tuple(self._waiting) if not request.cancelled]

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._joining or self._running or self._suspects)

    def add(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        sink: Sink,
        *,
        score_prompt: bool = False,
        constraint: Constraint | None = None,
    ) -> EngineRequest:
        """Put a request at the end of the queue; together with its answer it must be within `longest`.

        Raises:
            DataError: there is no token, or one that has no row in the model's embedding.
        """
        if not prompt:
            raise DataError("There is no token to answer: a prompt needs at least one.")
        rows = self._decoder.model.get_input_embeddings().weight.shape[0]
        if not all(0 <= token < rows for token in prompt):
            raise DataError(f"Token ids must be from 0 to {rows - 1}.")
        request = EngineRequest(tuple(prompt), sampling, sink, score_prompt, constraint)
        self._waiting.append(request)
        return request

    def drop_active(self) -> list[EngineRequest]:
        """Drop the requests that have begun, for example after a step failed, and return them."""
        dropped = [request for request in self.active if not (request.cancelled or request.ended)]
        self._joining = self._running = self._reading = None
        self._suspects.clear()
        return dropped

    def isolate(self) -> list[EngineRequest]:
        """After a step that failed, find the request at fault, so that the others can go on.

        Any of them may have been it. So each is read anew, by itself, up to its next token, before it joins
        the others again; the one that fails then is at fault.

        Returns:
            The requests that can't go on; they are dropped.
        """
        reading = self._reading
        if reading is not None and reading.alone:
            self._joining = self._reading = None
            return [request for request in reading.requests if not (request.cancelled or request.ended)]
        begun = self.drop_active()
        # With nothing under way, those that wait were at fault; they must not be tried for ever.
        if len(begun) <= 1:
            return begun or self.waiting
        self._suspects.extend(request for request in begun if not _is_sent_in_part(request))
        return [request for request in begun if _is_sent_in_part(request)]

    @torch.inference_mode()
    def step(self) -> None:
        """Compute a piece of the new prompts, and the next token of every answer that is being written."""
        self._joining = self._without_cancelled(self._joining)
        self._running = self._without_cancelled(self._running)
        if self._joining is None:
            self._joining = self._next_suspect() or self._next_group()
        self._reading = self._joining
        if self._joining is not None:
            self._prefill(self._joining)
        self._reading = None
        if self._running is not None:
            self._decode(self._running)

    def _next_suspect(self) -> _Group | None:
        """A request out of a step that failed, to be read by itself."""
        while self._suspects:
            request = self._suspects.popleft()
            if not request.cancelled:
                return _Group([request], self._empty_cache(), 0, alone=True)
        return None

    def _empty_cache(self) -> DynamicCache | None:
        return DynamicCache(config=self._decoder.model.config) if self._decoder.plain_cache else None

    def _next_group(self) -> _Group | None:
        """Take from the queue, in its order, what fits into a prefill, the batch and the cache."""
        chosen: list[EngineRequest] = []
        rows = self._running.requests if self._running else []
        while self._waiting and len(rows) + len(chosen) < self.max_rows:
            request = self._waiting[0]
            if request.cancelled:
                self._waiting.popleft()
                continue
            group = [*chosen, request]
            if len(group) > 1 and len(group) * max(len(r.prompt) for r in group) > self._prefill_tokens:
                break
            together = [*rows, *group]
            if len(together) * max(r.longest for r in together) > self._cache_tokens and len(together) > 1:
                break
            self._waiting.popleft()
            chosen = group
        if not chosen:
            return None
        return _Group(chosen, self._empty_cache(), 0)

    def _prefill(self, group: _Group) -> None:
        """Compute the next columns of a group's prompts; after the last, the group joins the others."""
        longest = max(len(request.row) for request in group.requests)
        rows, start = len(group.requests), group.width
        size = max(1, self._prefill_tokens // rows) if self._decoder.plain_cache else longest
        end = min(start + size, longest)
        padded = [[0] * (longest - len(r.row)) + list(r.row) for r in group.requests]
        ids = torch.tensor([row[start:end] for row in padded])
        first = torch.tensor([longest - len(request.row) for request in group.requests])
        scored = any(request.score_prompt and not request.answer for request in group.requests)
        logits = self._forward(ids, first, group, keep=end - start if scored else 1)
        for request, row in zip(group.requests, logits, strict=True):
            column = start - (longest - len(request.prompt))  # of the prompt; below 0 it is padding
            if (
                request.score_prompt
                and not request.answer
                and (tokens := prompt_tokens(request, row, column))
            ):
                request.sink(PromptTokens(tokens))
        if end < longest:
            return
        for request in group.requests:
            request.tokens = len(request.row)
        joined = self._emit(group, logits[:, -1].float())
        self._reading = None
        if joined is not None:
            self._running = joined if self._running is None else self._merge(self._running, joined)
        self._joining = None

    def _decode(self, group: _Group) -> None:
        ids = torch.tensor([request.answer[-1:] for request in group.requests])
        first = torch.tensor([group.width - request.tokens for request in group.requests])
        logits = self._forward(ids, first, group)
        for request in group.requests:
            request.tokens += 1
        self._running = self._emit(group, logits[:, -1].float())

    def _forward(self, ids: Tensor, first: Tensor, group: _Group, *, keep: int = 1) -> Tensor:
        """Compute columns and add them to the group's cache.

        Args:
            ids: [b, s], the columns that come after those in the cache.
            first: [b], each row's first column; what is left of it is padding.
            group: the rows.
            keep: how many columns' logits are wanted.

        Returns:
            Logits [b, keep, v] of the last columns.
        """
        decoder, device = self._decoder, self._decoder.device
        start, end = group.width, group.width + ids.shape[1]
        group.width = end
        if not decoder.plain_cache:
            logits, group.cache = decoder.read(ids.to(device), group.cache)
            return logits[:, -keep:]
        columns = torch.arange(end)
        mask = (columns >= first[:, None]).long().to(device)
        positions = (columns[start:] - first[:, None]).clamp(min=0).to(device)
        return decoder.logits(ids.to(device), mask, positions, keep, group.cache)

    def _emit(self, group: _Group, logits: Tensor) -> _Group | None:
        """Choose each row's next token and hand it on; returns the group of the rows that go on."""
        settings = [request.sampling for request in group.requests]
        uniforms = [request.uniform for request in group.requests]
        check_answer(logits)
        allowed, failed = _restricted(group.requests, logits)
        tokens = choose(allowed, settings, uniforms)
        details = chosen_tokens(group.requests, logits, tokens)
        going = []
        for index, (request, token) in enumerate(zip(group.requests, tokens.tolist(), strict=True)):
            if index in failed:
                request.end(Failed(failed[index]))
                continue
            if not request.sampling.max_new_tokens:
                request.end(Finished("length"))
                continue
            written = details.get(index) or Token(token)
            if token in request.sampling.stop_ids:
                request.end(Finished("stop", written))
                continue
            if request.constraint is not None:
                request.constraint.take(token)
            request.take(token)
            request.sink(written)
            if len(request.answer) >= request.sampling.max_new_tokens:
                request.end(Finished("length"))
            else:
                going.append(index)
        return self._keep(group, going)

    def _without_cancelled(self, group: _Group | None) -> _Group | None:
        if group is None or not any(request.cancelled for request in group.requests):
            return group
        going = [index for index, request in enumerate(group.requests) if not request.cancelled]
        return self._keep(group, going)

    def _keep(self, group: _Group, going: list[int]) -> _Group | None:
        """The group with only these rows, and without the columns that are padding in all of them."""
        if len(going) == len(group.requests):
            return group
        if not going:
            return None
        keep_rows(group.cache, torch.tensor(going))
        kept = _Group([group.requests[index] for index in going], group.cache, group.width)
        if group is self._joining or max(request.tokens for request in kept.requests) > 0.75 * group.width:
            return kept
        return self._merge(kept)

    def _merge(self, *groups: _Group) -> _Group:
        """One group of all rows, right-aligned, as wide as the longest of them."""
        requests = [request for group in groups for request in group.requests]
        width = max(request.tokens for request in requests)
        cache = DynamicCache(config=self._decoder.model.config)
        for index in range(len(cache.layers)):
            keys, values = [], []
            for group in groups:
                layer = group.cache.layers[index]
                assert isinstance(layer, DynamicLayer)
                if layer.keys is not None and layer.values is not None:
                    keys.append(_aligned(layer.keys, width))
                    values.append(_aligned(layer.values, width))
                    layer.reset()  # frees it as soon as it is copied
            if keys:  # some layers share another's keys and values
                cache.update(torch.cat(keys), torch.cat(values), index)
        return _Group(requests, cache, width)


def _is_sent_in_part(request: EngineRequest) -> bool:
    """Whether some of its prompt's log-probabilities may be under way, and would come twice."""
    return request.score_prompt and not request.answer


def _restricted(requests: Sequence[EngineRequest], logits: Tensor) -> tuple[Tensor, dict[int, str]]:
    """The logits [b, v] of the tokens that each row's constraint allows, and why rows can't go on."""
    allowed, failed = logits, {}
    for index, request in enumerate(requests):
        if request.constraint is not None:
            allowed = logits.clone() if allowed is logits else allowed
            try:
                allowed[index] = request.constraint.restrict(logits[index])
            except MedCareError as error:
                failed[index] = str(error)
    return allowed, failed


def _aligned(states: Tensor, width: int) -> Tensor:
    """The last `width` columns of keys or values [b, heads, s, d]; zeros to the left of what there is.

    A sliding layer has dropped its oldest columns; the zeros in their place are out of every token's sight.
    """
    states = states[:, :, -width:]
    return nn.functional.pad(states, (0, 0, width - states.shape[2], 0))
