"""The two terms of the loss, each right under accumulation and on many devices.

A step's loss is  sum of token NLL / supervised tokens of the whole step  +  lambda * penalty.
The count runs over all micro-batches and devices of the step, so that how a batch is cut changes nothing;
the penalty depends on parameters only and enters once a step.

The vocabulary projection sees supervised positions only, some at a time, and leaves the gradient of its
input instead of logits: nothing of the size [tokens, vocabulary] is ever held. That needs a frozen
projection; one that trains makes the logits of all supervised positions at once. A model whose logits come
about in a way of its own (`Traits.head` says so) makes all of its logits itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.shards import whole
from medcare.models.traits import LogitRule, Traits, hidden_states
from medcare.text.batches import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Logits at a time, 64 MiB in float32: smaller products with the vocabulary take longer (docs/performance.md).
_LOGITS = 1 << 24


class TokenLoss(nn.Module):
    """A causal language model with its loss as one module, which wrappers for many devices can wrap.

    Args:
        model: a causal language model, with or without branches.
        traits: what it does; by default it is asked.
    """

    def __init__(self, model: PreTrainedModel, traits: Traits | None = None) -> None:
        super().__init__()
        self.model = model
        self.halves = (traits or Traits.of(model)).head

    def __getattr__(self, name: str) -> Any:
        """The model's own, such as the configuration and the kinds of layers that wrappers ask for."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, inputs: dict[str, Tensor], labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """The summed negative log-likelihood of the supervised tokens, a scalar in float32 or wider.

        Args:
            inputs: the model's arguments, with `input_ids` [b, s].
            labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
            weights: [b, s], by which each token's term is multiplied; by default 1.
        """
        if self.halves is None:
            logits = self.model(**inputs, use_cache=False).logits
            keep, targets = _predicted(labels)
            return _cross_entropy(logits[keep], targets, _of_targets(weights, keep))
        hidden = hidden_states(self.halves.body(**inputs, use_cache=False))
        return nll_sum(hidden, self.model.get_output_embeddings(), labels, self.halves.rule, weights)


def nll_sum(
    hidden: Tensor, head: nn.Module, labels: Tensor, rule: LogitRule, weights: Tensor | None = None
) -> Tensor:
    """The summed negative log-likelihood of the supervised tokens, a scalar in float32 or wider.

    Args:
        hidden: [b, s, h], the hidden states that `head` reads.
        head: the vocabulary projection.
        labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
        rule: what the model does to the projection's output.
        weights: [b, s], by which each token's term is multiplied; by default 1.
    """
    keep, targets = _predicted(labels)
    chosen, factors = hidden[keep], _of_targets(weights, keep)
    if not isinstance(head, nn.Linear) or head.weight.requires_grad:
        return _cross_entropy(rule(_wide(head(chosen))), targets, factors)
    weight, bias = whole(head.weight), None if head.bias is None else whole(head.bias)
    pieces = (chosen.to(weight.dtype), weight, bias, targets, rule, factors)
    return cast(Tensor, _PiecewiseNll.apply(*pieces))  # type: ignore[no-untyped-call]


class _PiecewiseNll(torch.autograd.Function):
    """Projection and cross-entropy, piece by piece, with the input's gradient made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        rule: LogitRule,
        factors: Tensor | None,
    ) -> Tensor:
        """The summed NLL of `targets` [n], times `factors` [n], if there are any.

        It is that of `hidden` [n, h], with a frozen `weight` [v, h] and `bias` [v].
        """
        total = torch.zeros((), device=hidden.device, dtype=_wide(hidden[:0]).dtype)
        gradient = torch.empty_like(hidden)
        rows = max(1, _LOGITS // weight.shape[0])
        for start in range(0, len(targets), rows):
            piece = slice(start, start + rows)
            target = targets[piece, None]
            logits = rule(_wide(functional.linear(hidden[piece], weight, bias)))
            slope = rule.slope(logits)
            logs = logits.log_softmax(-1)
            terms = logs.gather(1, target)
            total -= (terms if factors is None else terms * factors[piece, None]).sum()
            if ctx.needs_input_grad[0]:
                shares = logs.exp_()
                shares.scatter_add_(1, target, shares.new_full(target.shape, -1))
                if isinstance(slope, Tensor) or slope != 1:
                    shares *= slope
                if factors is not None:
                    shares *= factors[piece, None]
                torch.mm(shares.to(weight.dtype), weight, out=gradient[piece])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Scale the gradient of the input [n, h]."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None, None, None


def _predicted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The positions [b, s] that predict a supervised token, and those tokens [n]."""
    keep = functional.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)
    return keep, labels.roll(-1, 1)[keep]


def _of_targets(weights: Tensor | None, keep: Tensor) -> Tensor | None:
    """The weights [n] of the tokens that the positions `keep` predict."""
    return None if weights is None else weights.roll(-1, 1)[keep]


def _cross_entropy(logits: Tensor, targets: Tensor, factors: Tensor | None) -> Tensor:
    if factors is None:
        return functional.cross_entropy(_wide(logits), targets, reduction="sum")
    return (functional.cross_entropy(_wide(logits), targets, reduction="none") * factors).sum()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()
