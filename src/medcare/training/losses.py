"""What is minimised: the token loss is here, the orthogonality penalty in adapters/orthogonality.py.

A step's loss is  sum of token NLL / supervised tokens of the whole step  +  lambda * penalty.
Tokens are counted over all micro-batches and devices of the step, so that it makes no difference how a batch
is split; the penalty depends on the parameters only and is added once a step (loop.py).

A token may be taught in part by the model as it was when the stage began (`Former`): a share of its term is
then the distance KL(former || now) between the two predictions, in place of the token's NLL.

The vocabulary projection is computed for supervised positions only, a piece at a time, and each piece leaves
the gradient of its input instead of its logits: nothing of the size [tokens, vocabulary] is ever held. This
needs a frozen projection; where it trains, the logits of all supervised positions are made at once. A model
that makes its logits in an unusual way (`Traits.head` is None) makes all of them itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medcare.adapters.former import Former
from medcare.adapters.shards import whole
from medcare.models.traits import LogitRule, Traits, hidden_states
from medcare.text.batches import IGNORED
from medcare.training.kernels import FusedLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Logits of one piece, 64 MiB in float32; smaller pieces take longer (docs/performance.md).
_LOGITS = 1 << 24


class TokenLoss(nn.Module):
    """A causal language model and its loss as one module, so that DDP and FSDP can wrap both.

    Args:
        model: a causal language model, with or without branches.
        traits: what the model can do; by default that is tried out now.
        former: the model as it was when the stage began; needed only where tokens are taught by it.
        fused: whether another package's kernel makes the loss; by default none does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        traits: Traits | None = None,
        former: Former | None = None,
        fused: FusedLoss | None = None,
    ) -> None:
        super().__init__()
        self.fused = fused
        self.model = model
        self.former = former
        self.halves = (traits or Traits.of(model)).head

    def __getattr__(self, name: str) -> Any:
        """The model's own, such as the configuration and the kinds of layers that wrappers ask for."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(
        self,
        inputs: dict[str, Tensor],
        labels: Tensor,
        weights: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> Tensor:
        """The summed negative log-likelihood of the supervised tokens, a scalar in float32 or wider.

        Args:
            inputs: the model's arguments, with `input_ids` [b, s].
            labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
            weights: [b, s], by which each token's term is multiplied; by default 1.
            taught: [b, s], the share of each token's term that is the distance to the former model; by
                default 0.
        """
        before = None
        if taught is not None:
            assert self.former is not None
            keep, _ = _predicted(labels)
            with self.former.restored(), torch.no_grad():
                before = Taught(self._read(inputs)[keep], taught.roll(-1, 1)[keep])
        read = self._read(inputs)
        if self.halves is None:
            keep, targets = _predicted(labels)
            return _sum(read[keep], targets, _of_targets(weights, keep), before)
        head = self.model.get_output_embeddings()
        return nll_sum(read, head, labels, self.halves.rule, weights, before, self.fused)

    def _read(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the loss is made of: hidden states [b, s, h], or the logits [b, s, v] of an odd model."""
        if self.halves is None:
            logits: Tensor = self.model(**inputs, use_cache=False).logits
            return logits
        return hidden_states(self.halves.body(**inputs, use_cache=False))


class Taught(NamedTuple):
    """What the former model computes for the same n supervised positions.

    Attributes:
        read: its hidden states [n, h], or its logits [n, v].
        shares: [n], the share of each term that is the distance to it.
    """

    read: Tensor
    shares: Tensor


def nll_sum(
    hidden: Tensor,
    head: nn.Module,
    labels: Tensor,
    rule: LogitRule,
    weights: Tensor | None = None,
    taught: Taught | None = None,
    fused: FusedLoss | None = None,
) -> Tensor:
    """The summed negative log-likelihood of the supervised tokens, a scalar in float32 or wider.

    Args:
        hidden: [b, s, h], the hidden states that `head` reads.
        head: the vocabulary projection.
        labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
        rule: what the model does to the projection's output.
        weights: [b, s], by which each token's term is multiplied; by default 1.
        taught: what the former model computes for the same positions.
        fused: whether another package's kernel makes the loss; by default none does.
    """
    keep, targets = _predicted(labels)
    chosen, factors = hidden[keep], _of_targets(weights, keep)
    if not isinstance(head, nn.Linear) or head.weight.requires_grad:
        if taught is not None:
            taught = taught._replace(read=rule(_wide(head(taught.read))))
        return _sum(rule(_wide(head(chosen))), targets, factors, taught)
    weight, bias = whole(head.weight), None if head.bias is None else whole(head.bias)
    read, shares = (None, None) if taught is None else (taught.read.to(weight.dtype), taught.shares)

    def in_pieces(hidden: Tensor) -> Tensor:
        pieces = (hidden, weight, bias, targets, rule, factors, read, shares)
        return cast(Tensor, _PiecewiseNll.apply(*pieces))  # type: ignore[no-untyped-call]

    chosen = chosen.to(weight.dtype)
    if fused is None or factors is not None or taught is not None:
        return in_pieces(chosen)
    return fused.choose(in_pieces, chosen, weight, bias, targets, rule)(chosen)


class _PiecewiseNll(torch.autograd.Function):
    """Projection and cross-entropy, piece by piece; the gradient of the input is computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        rule: LogitRule,
        factors: Tensor | None,
        former: Tensor | None,
        shares: Tensor | None,
    ) -> Tensor:
        """The summed NLL of `targets` [n], times `factors` [n], if there are any.

        It is that of `hidden` [n, h], with a frozen `weight` [v, h] and `bias` [v]. Of each term the share in
        `shares` [n] is the distance to what the former model's hidden states `former` [n, h] say.
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
            terms, own = logs.gather(1, target), logs.new_ones(target.shape)
            if former is not None and shares is not None:
                before = rule(_wide(functional.linear(former[piece], weight, bias))).log_softmax(-1)
                share = shares[piece, None].to(logs.dtype)
                own, taught = own - share, share * before.exp()
                terms = own * terms + (taught * (logs - before)).sum(1, keepdim=True)
            total -= (terms if factors is None else terms * factors[piece, None]).sum()
            if ctx.needs_input_grad[0]:
                slopes = logs.exp_()
                slopes.scatter_add_(1, target, -own)
                if former is not None:
                    slopes -= taught
                if isinstance(slope, Tensor) or slope != 1:
                    slopes *= slope
                if factors is not None:
                    slopes *= factors[piece, None]
                torch.mm(slopes.to(weight.dtype), weight, out=gradient[piece])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient of the input [n, h]."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), *[None] * 7


def _predicted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The positions [b, s] that predict a supervised token, and those tokens [n]."""
    keep = functional.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)
    return keep, labels.roll(-1, 1)[keep]


def _of_targets(weights: Tensor | None, keep: Tensor) -> Tensor | None:
    """The weights [n] of the tokens that the positions `keep` predict."""
    return None if weights is None else weights.roll(-1, 1)[keep]


def _sum(logits: Tensor, targets: Tensor, factors: Tensor | None, taught: Taught | None) -> Tensor:
    """As `nll_sum`, out of all logits [n, v]; those of the former model are in `taught.read`."""
    if factors is None and taught is None:
        return functional.cross_entropy(_wide(logits), targets, reduction="sum")
    terms = functional.cross_entropy(_wide(logits), targets, reduction="none")
    if taught is not None:
        now, before = _wide(logits).log_softmax(-1), _wide(taught.read).log_softmax(-1)
        distance = functional.kl_div(now, before, reduction="none", log_target=True).sum(-1)
        terms = torch.lerp(terms, distance, taught.shares.to(terms.dtype))
    return (terms if factors is None else terms * factors).sum()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()
