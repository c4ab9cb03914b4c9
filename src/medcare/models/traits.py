"""What a causal language model does, found out by trying it on a few tokens.

Attention kernels, position schemes, recurrent layers and heads are too many to list, and new ones come with
every version of transformers. So nothing here is decided by a model's name: each question is put to the model
itself, once, before anything is built on the answer.

Whether a token is reached by another is read from a gradient, not from a difference. Where a mask is closed,
the gradient of the logits with respect to the other token's embedding is exactly zero, in any dtype; where
anything leaks, through a mask, a convolution or a recurrent state, it is not. A difference between two runs
would need a tolerance, and round-off in bfloat16 is larger than many a leak. What a gradient doesn't show (a
position counted wrongly, a choice of experts or of tokens) is found by comparing with the example alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.models.placement import input_device
from medcare.models.quantized import is_quantized

# What a model raises when it can't take what it is given.
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError,
             TypeError, ValueError)  # fmt: skip


# Put in the place of logits: pairs of both signs, from where every rule is a line up to where a cap is
# reached.
_PROBE = torch.tensor(
    [sign * 2.0**power for power in range(-30, 15) for sign in (-1, 1)], dtype=torch.float64
)


@dataclass(frozen=True)
class LogitRule:
    """What a model does to the output of its vocabulary projection: `cap * tanh(scale * x / cap)`.

    Attributes:
        scale: what logits are multiplied with, as in Cohere and Granite.
        cap: the bound on their size, as in Gemma; None if there is none.
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The model's logits, of the projection's."""
        scaled = logits if self.scale == 1 else logits * self.scale
        return scaled if self.cap is None else torch.tanh(scaled / self.cap) * self.cap

    def slope(self, ruled: Tensor) -> Tensor | float:
        """The derivative, where the result is `ruled`."""
        return self.scale if self.cap is None else self.scale * (1 - (ruled / self.cap).square())


@dataclass(frozen=True)
class Head:
    """The two halves of a model whose logits are `rule(projection(body(..)))`.

    Attributes:
        body: the part that makes hidden states [b, s, h] out of the model's own arguments.
        rule: what becomes of the projection's output.
    """

    body: nn.Module
    rule: LogitRule


class Traits:
    """Answers about one model; each question is asked when its answer is first wanted, and once.

    Args:
        model: a causal language model of transformers, with or without branches.
    """

    def __init__(self, model: Any) -> None:
        self._ref = ref(model)  # a model is not kept alive by what is known of it

    @classmethod
    def of(cls, model: nn.Module) -> Traits:
        """The traits of a model, the same object whenever it is asked with the same attention kernel."""
        known = _KNOWN.setdefault(model, {})
        kernel = getattr(getattr(model, "config", None), "_attn_implementation", None)
        if kernel not in known:
            known[kernel] = cls(model)
        return known[kernel]

    @cached_property
    def separates_padded_rows(self) -> bool:
        """Whether each row of a batch padded on the right has the logits of its example alone.

        It is false for models that aren't causal: a token sees the padding after it.
        """
        short, long = self._tokens(11, seed=1), self._tokens(13, seed=2)
        ids = torch.cat([long, torch.cat([short, long[:, :2]], dim=1)])
        inside = torch.zeros_like(ids, dtype=torch.bool)
        inside[1, :11] = True
        return self._alone({"input_ids": ids}, inside, short)

    @cached_property
    def separates_packed_rows(self) -> bool:
        """Whether an example in a packed row has the logits that it has alone.

        Packed rows carry positions that start anew and no mask: transformers builds one from them, but not
        for all kinds of attention, and recurrent layers have no mask. Attention that first chooses the tokens
        it looks at would choose among strangers, but only in rows too long to be tried.
        """
        if not self._remembers_keys_and_values:
            return False
        before, example = self._tokens(13, seed=2), self._tokens(11, seed=1)
        ids = torch.cat([before, example], dim=1)
        positions = torch.cat([torch.arange(13), torch.arange(11)])[None].to(ids.device)
        inside = torch.arange(24, device=ids.device)[None] >= 13
        return self._alone({"input_ids": ids, "position_ids": positions}, inside, example)

    @cached_property
    def masks_blocks(self) -> bool:
        """Whether a mask [b, 1, s, s] that is added to attention scores is honoured, with positions to it.

        The row, short enough for sliding windows, is padding, a prompt and two continuations, of which the
        second doesn't see the first.
        """
        model = self._model()
        if model.config._attn_implementation not in ("sdpa", "eager"):
            return False  # other kernels take no such mask
        prompt, first, second = (self._tokens(length, seed=length) for length in (2, 1, 2))
        ids = torch.cat([first, prompt, first, second], dim=1)
        positions = torch.tensor([[0, 0, 1, 2, 2, 3]], device=ids.device)
        seen = torch.ones(6, 6, dtype=torch.bool).tril()
        seen[1:, 0] = seen[4:, 3] = False
        mask = torch.zeros(1, 1, 6, 6, dtype=model.dtype)
        mask = mask.masked_fill(~seen, torch.finfo(model.dtype).min).to(ids.device)
        inside = torch.tensor([[False, True, True, False, True, True]], device=ids.device)
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
        example = torch.cat([prompt, second], dim=1)
        return self._takes("position_ids") and self._alone(inputs, inside, example, last=2)

    @cached_property
    def plain_cache(self) -> bool:
        """Whether every layer is attention with an ordinary key-value cache that can be cut and joined.

        Rows of unlike lengths, padded on the left behind a prefix they share, must get the logits of each
        row alone, and so must the token after them. All is within any sliding window.
        """
        from transformers import DynamicCache

        model = self._model()

        def continues() -> bool:
            cache = DynamicCache(config=model.config)
            if not self._takes("position_ids") or not self._remembers_keys_and_values:
                return False
            options = {self.cache_argument: cache, "use_cache": True}
            prefix, long, short = (self._tokens(length, seed=length) for length in (1, 2, 1))
            after = self._tokens(2, seed=9).T
            model(input_ids=prefix, **options)
            cache.batch_repeat_interleave(2)
            ids = torch.cat([long, torch.cat([long[:, :1], short], dim=1)])
            mask = torch.ones(2, 4, dtype=torch.long, device=ids.device)
            mask[1, 1] = 0
            at = torch.tensor([[1, 2], [0, 1]], device=ids.device)
            read = self._logits(input_ids=ids, attention_mask=mask[:, :-1], position_ids=at, **options)
            at = at[:, -1:] + 1
            written = self._logits(input_ids=after, attention_mask=mask, position_ids=at, **options)
            rows = [
                torch.cat([prefix, own, after[row, None]], dim=1) for row, own in enumerate((long, short))
            ]
            alone = [self._logits(input_ids=row, use_cache=False)[0, -2:] for row in rows]
            return self._close(torch.stack([read[:, -1], written[:, -1]], dim=1), torch.stack(alone))

        with torch.no_grad():
            return self._tried(continues)

    @cached_property
    def window(self) -> int:
        """The shortest sliding window in tokens; 0 if attention is unlimited."""
        windows = [getattr(layer, "sliding_window", None) for layer in self._layers]
        windows.append(getattr(self._model().config, "window_size", None))  # GPT-Neo's layers don't tell
        return min((window for window in windows if isinstance(window, int) and window), default=0)

    @cached_property
    def _remembers_keys_and_values(self) -> bool:
        """Whether all that any layer remembers of a token is its keys and values."""
        from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

        kinds = {type(layer) for layer in self._layers}
        return bool(kinds) and kinds <= {DynamicLayer, DynamicSlidingWindowLayer}

    @cached_property
    def _layers(self) -> list[Any]:
        """What transformers remembers a row in, layer by layer; empty if it doesn't say."""
        from transformers import DynamicCache

        try:
            return list(DynamicCache(config=self._model().config).layers)
        except _REFUSALS:
            return []

    @cached_property
    def own_cache(self) -> bool:
        """Whether a row can be read in one go and then be continued with the cache that the model makes."""

        def continues() -> bool:
            row = self._tokens(9, seed=9)
            output, made = self._model()(input_ids=row[:, :6], use_cache=True), []
            for at in range(6, 9):
                made.append(output.logits[0, -1])
                cache = {self.cache_argument: output[self.cache_argument]}
                output = self._model()(input_ids=row[:, at : at + 1], use_cache=True, **cache)
            made.append(output.logits[0, -1])
            return self._close(torch.stack(made), self._logits(input_ids=row, use_cache=False)[0, 5:])

        with torch.no_grad():
            return self._tried(continues)

    @cached_property
    def cache_argument(self) -> str:
        """Under which name the model takes, and returns, what it remembers of a row; empty if it doesn't."""
        names = ("cache", "past_key_values", "cache_params", "state")
        return next((name for name in names if self._takes(name)), "")

    @cached_property
    def head(self) -> Head | None:
        """The model's two halves; None if its logits come about in another way."""
        found: list[Head] = []

        def look() -> bool:
            with torch.inference_mode(False), torch.enable_grad(), self._cut():
                found.extend(self._halves())
            return bool(found)

        return found[0] if self._tried(look) else None

    def _halves(self) -> Iterator[Head]:
        """Watch a forward pass with chosen numbers in the place of the projection's output."""
        model, ids = self._model(), self._tokens(3, seed=3)
        projection = model.get_output_embeddings()
        named = [model.base_model, getattr(model, "model", None), model.get_decoder()]
        bodies = [body for body in named if isinstance(body, nn.Module) and body is not model]
        hidden: dict[nn.Module, Tensor] = {}
        seen: list[Tensor] = []

        def instead(_: nn.Module, given: Any, output: Tensor) -> Tensor:
            seen.extend((given[0].detach(), output.detach()))
            numbers = _PROBE.repeat(output.shape[-1] // len(_PROBE) + 1)[: output.shape[-1]]
            return numbers.to(output.device).expand(output.shape)

        hooks = [projection.register_forward_hook(instead)]
        hooks += [
            body.register_forward_hook(
                lambda part, _, output: hidden.update({part: hidden_states(output).detach()})
            )
            for body in bodies
        ]
        try:
            logits = self._logits(input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        given, output = seen
        if logits.shape != output.shape:
            return
        if isinstance(projection, nn.Linear):
            product = functional.linear(given, projection.weight, projection.bias).detach()
            if not self._close(product, output):
                return
        rule = _fitted(logits[0, 0, : len(_PROBE)].detach().double().cpu())
        for body in dict.fromkeys(bodies):
            if rule is None or body not in hidden or hidden[body].shape != given.shape:
                continue
            states = hidden[body].detach()
            factor = self._factor(states, given)
            if factor is None or (factor != 1 and projection.bias is not None):
                continue
            if self._close(hidden_states(body(input_ids=ids, use_cache=False)).detach(), states):
                yield Head(body, LogitRule(rule.scale * factor, rule.cap))

    def _alone(self, inputs: dict[str, Tensor], inside: Tensor, example: Tensor, last: int = 0) -> bool:
        """Whether logits depend on nothing but their own example, and are those of the example alone.

        Args:
            inputs: the model's arguments, with `input_ids` [b, s].
            inside: [b, s], where the example is.
            example: [1, n], its ids.
            last: how many of its last tokens have the logits that are asked for; all by default.
        """

        def logits_of(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with self._cut() as leaves:
                logits = self._logits(**given, use_cache=False)
            (leaf,) = leaves
            return logits, leaf

        def separate() -> bool:
            with torch.inference_mode(False), torch.enable_grad():
                logits, leaf = logits_of(inputs)
                logits = logits[inside][-last:]
                weights = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)
                (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), leaf)
                if (
                    gradient.shape[:2] != inside.shape
                    or gradient[~inside].any()
                    or not gradient[inside].any()
                ):
                    return False
                expected = logits_of({"input_ids": example})[0][0, -last:]
            return self._close(logits.detach(), expected.detach())

        return self._tried(separate)

    @contextmanager
    def _cut(self) -> Iterator[list[Tensor]]:
        """Within the block, gradients end at embeddings, which are collected.

        Models are tried with gradients, even where none are asked for: without them, bitsandbytes gives 4-bit
        weights on a processor a form that nothing can be trained beside.
        """
        leaves: list[Tensor] = []

        def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1].clone()

        hook = self._model().get_input_embeddings().register_forward_hook(cut)
        try:
            yield leaves
        finally:
            hook.remove()

    def _tried(self, question: Callable[[], bool]) -> bool:
        """The answer; no if the model raises. Its mode is put back, and no random number is used up."""
        model = self._model()
        training = model.training
        model.eval()
        devices = [self._device()] if self._device().type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                return question()
            except _REFUSALS:
                return False
            finally:
                model.train(training)

    def _model(self) -> Any:
        return self._ref()

    def _logits(self, **inputs: Any) -> Tensor:
        logits: Tensor = self._model()(**inputs).logits
        return logits

    def _takes(self, argument: str) -> bool:
        return argument in inspect.signature(self._model().forward).parameters

    def _device(self) -> torch.device:
        return input_device(self._model())

    def _tokens(self, count: int, *, seed: int) -> Tensor:
        """Ids [1, count] out of the vocabulary, none of which the configuration gives a meaning."""
        model = self._model()
        given = {value for part in (model.config, model.config.get_text_config())
                 for name, value in part.to_dict().items() if name.endswith(("_id", "_index"))
                 and isinstance(value, int)}  # fmt: skip
        size = model.get_input_embeddings().weight.shape[0]
        draw = torch.Generator().manual_seed(seed)
        ids = [
            token for token in torch.randperm(min(size, 4096), generator=draw).tolist() if token not in given
        ]
        return torch.tensor([ids[:count]], device=self._device())

    def _close(self, left: Tensor, right: Tensor, exponent: float = 0.5) -> bool:
        """Whether logits or states [.., s, n] differ by round-off alone; by default, that of many layers.

        In half precision a token may go to another expert by a hair, so most tokens decide.
        """
        precision = self._precision
        errors = (left.float() - right.float()).abs().amax(-1) / right.abs().max().float()
        error = errors.max() if precision.bits >= 32 else errors.median()
        return bool(error <= precision.eps**exponent)

    @cached_property
    def _precision(self) -> torch.finfo:
        """The precision of results: kernels for quantised weights round like bfloat16, if not in all rows."""
        model = self._model()
        rounded = any(is_quantized(parameter) for parameter in model.parameters())
        return torch.finfo(torch.bfloat16 if rounded else model.dtype)

    def _factor(self, states: Tensor, given: Tensor) -> float | None:
        """The number that hidden states are multiplied with before the projection reads them, if any."""
        if torch.equal(states, given):
            return 1.0
        factor = float((states.double() * given.double()).sum() / states.double().square().sum())
        return factor if self._close(states * factor, given, exponent=0.8) else None


def hidden_states(output: Any) -> Tensor:
    """The last hidden states [b, s, h] out of what a model without head returns."""
    states: Tensor = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
    return states


def _fitted(logits: Tensor) -> LogitRule | None:
    """The rule that makes these logits out of `_PROBE`."""
    if len(logits) < len(_PROBE):
        return None
    scale, largest = float(logits[1] / _PROBE[1]), float(logits[-1])
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    linear = abs(largest / float(_PROBE[-1]) - scale) <= 1e-5 * scale
    rule = LogitRule(scale, None if linear else largest)
    return rule if scale > 0 and torch.allclose(rule(_PROBE), logits, rtol=1e-5, atol=0) else None


# By model and attention kernel; written down here since the same model is asked for by many callers.
_KNOWN: WeakKeyDictionary[nn.Module, dict[str | None, Traits]] = WeakKeyDictionary()
