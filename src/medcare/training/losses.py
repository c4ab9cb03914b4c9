"""The two terms of the loss, each right under accumulation and on many devices.

A step's loss is  sum of token NLL / supervised tokens of the whole step  +  lambda * penalty.
The count runs over all micro-batches and devices of the step, so that how a batch is cut changes nothing;
the penalty depends on parameters only and enters once a step.

The vocabulary projection sees supervised positions only, some at a time, and leaves the gradient of its
input instead of logits: nothing of the size [tokens, vocabulary] is ever held. That needs a frozen projection
and knowledge of what the model does to its logits; where either is missing, logits are made whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.text.batches import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Logits at a time, 64 MiB in float32: smaller products with the vocabulary take longer (docs/performance.md).
_LOGITS = 1 << 24
# Whether `_capped` is all that the model does to the logits of a projection.
_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def nll_sum(
    model: PreTrainedModel, inputs: dict[str, Tensor], labels: Tensor, head: nn.Module | None = None
) -> Tensor:
    """The summed negative log-likelihood of the supervised tokens, a scalar in fp32 or wider.

    Args:
        model: a causal language model.
        inputs: its keyword arguments, with `input_ids` [b, s].
        labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
        head: the vocabulary projection, if `model` is wrapped so that it can't be asked for it.
    """
    head = head or cast(nn.Module, model.get_output_embeddings())
    keep = functional.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)
    targets = labels.roll(-1, 1)[keep]
    if isinstance(head, nn.Linear) and not head.weight.requires_grad and _plain.get(head, True):
        made: list[Tensor] = []
        cap = _cap(model)

        def project(hidden: Tensor) -> Tensor:
            pieces = (hidden[keep], head.weight, head.bias, targets, cap)
            nll = _PiecewiseNll.apply(*pieces)  # type: ignore[no-untyped-call]
            made.extend((nll, _probe(hidden, head.out_features)))
            return made[1]

        random = torch.get_rng_state()
        with _in_place_of(head, project):
            logits = model(**inputs, use_cache=False).logits
        nll, probe = made
        if head not in _plain:
            _plain[head] = torch.equal(logits.detach(), _capped(probe.detach(), cap).to(logits.dtype))
        if _plain[head]:
            # The model's output must be part of the graph: wrappers for many devices start from there.
            return cast(Tensor, nll + 0 * logits.sum())
        torch.set_rng_state(random)
        del logits, nll, probe, made[:]  # and the graph of this try, before another is made
    with _in_place_of(head, _selecting(head, keep)):
        logits = model(**inputs, use_cache=False).logits
    return functional.cross_entropy(_wide(logits), targets, reduction="sum")


class _PiecewiseNll(torch.autograd.Function):
    """Projection and cross-entropy, piece by piece, with the input's gradient made on the way."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, cap: float | None
    ) -> Tensor:
        """The summed NLL of `targets` [n], for `hidden` [n, h], a frozen `weight` [v, h] and `bias` [v].

        `cap` is the largest size of a logit in models that cap them.
        """
        total = torch.zeros((), device=hidden.device, dtype=_wide(hidden[:0]).dtype)
        gradient = torch.empty_like(hidden)
        rows = max(1, _LOGITS // weight.shape[0])
        for start in range(0, len(targets), rows):
            piece = slice(start, start + rows)
            target = targets[piece, None]
            logits = _capped(_wide(functional.linear(hidden[piece], weight, bias)), cap)
            slope = None if cap is None else 1 - (logits / cap).square()
            logs = logits.log_softmax(-1)
            total -= logs.gather(1, target).sum()
            if ctx.needs_input_grad[0]:
                shares = logs.exp_()
                shares.scatter_add_(1, target, shares.new_full(target.shape, -1))
                if slope is not None:
                    shares *= slope
                torch.mm(shares.to(weight.dtype), weight, out=gradient[piece])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Scale the gradient of the input [n, h]."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None, None


@contextmanager
def _in_place_of(head: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the projection do this instead, within whatever gathers its weight from many devices."""
    former = vars(head).get("forward")
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if former is not None:
            head.forward = former


def _selecting(head: nn.Module, keep: Tensor) -> Callable[[Tensor], Tensor]:
    whole = head.forward
    return lambda hidden: cast(Tensor, whole(hidden[keep]))


def _probe(like: Tensor, vocabulary: int) -> Tensor:
    """Stands for logits [1, v]: its values show what a model does to logits; it is part of `like`'s graph."""
    values = torch.linspace(-60, 60, vocabulary, device=like.device, dtype=like.dtype)
    return values[None] + 0 * like.flatten()[0]


def _cap(model: nn.Module) -> float | None:
    """Gemma's bound on the size of logits."""
    config = getattr(getattr(model, "module", model), "config", None)
    return getattr(config and config.get_text_config(), "final_logit_softcapping", None)


def _capped(logits: Tensor, cap: float | None) -> Tensor:
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()
