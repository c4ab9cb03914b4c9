"""What is minimised: the token loss is here, the orthogonality penalty in adapters/orthogonality.py.

    loss of a step = sum of weight * term over its supervised tokens / sum of weights  +  lambda * penalty
    term of a token = (1 - share) * NLL  +  share * KL(teacher || model)

Both sums are over all micro-batches and devices of the step, so that it makes no difference how a batch is
split; the penalty depends on the parameters only and is added once a step (loop.py). The weight is 1 and the
share is 0 unless settings say otherwise. The teacher is the model as it was when the stage began.

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

from medcare.adapters.shards import whole
from medcare.adapters.teacher import Teacher
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
        teacher: the model as it was when the stage began; needed only where some shares are not 0.
        fused: whether another package's kernel makes the loss; by default none does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        traits: Traits | None = None,
        teacher: Teacher | None = None,
        fused: FusedLoss | None = None,
    ) -> None:
        super().__init__()
        self.fused = fused
        self.model = model
        self.teacher = teacher
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
        shares: Tensor | None = None,
    ) -> Tensor:
        """The sum of the supervised tokens' terms, a scalar in float32 or wider.

        Args:
            inputs: the model's arguments, with `input_ids` [b, s].
            labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
            weights: [b, s], by which each token's term is multiplied; by default 1.
            shares: [b, s], the teacher's share of each token's term; by default 0.
        """
        taught = None
        if shares is not None:
            assert self.teacher is not None
            keep = _predicting(labels)
            with self.teacher.restored(), torch.no_grad():
                taught = Taught(self._states(inputs)[keep], _of_next(shares, keep))
        states = self._states(inputs)
        if self.halves is None:
            keep, targets = _targets(labels, weights, taught)
            return _sum(states[keep], targets)
        head = self.model.get_output_embeddings()
        return nll_sum(states, head, labels, self.halves.rule, weights, taught, self.fused)

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the loss is made of: hidden states [b, s, h], or the logits [b, s, v] of an odd model."""
        if self.halves is None:
            logits: Tensor = self.model(**inputs, use_cache=False).logits
            return logits
        return hidden_states(self.halves.body(**inputs, use_cache=False))


class Taught(NamedTuple):
    """What the teacher computes at the n positions that predict a supervised token.

    Attributes:
        states: its hidden states [n, h], or its logits [n, v].
        shares: [n], its share of each term.
    """

    states: Tensor
    shares: Tensor


class _Targets(NamedTuple):
    """What the n predicting positions are held to.

    Attributes:
        ids: [n], the supervised tokens.
        weights: [n], by which their terms are multiplied; None for 1.
        taught: what the teacher says there; None if there is none.
    """

    ids: Tensor
    weights: Tensor | None
    taught: Taught | None


def nll_sum(
    hidden: Tensor,
    head: nn.Module,
    labels: Tensor,
    rule: LogitRule,
    weights: Tensor | None = None,
    taught: Taught | None = None,
    fused: FusedLoss | None = None,
) -> Tensor:
    """The sum of the supervised tokens' terms, a scalar in float32 or wider.

    Args:
        hidden: [b, s, h], the hidden states that `head` reads.
        head: the vocabulary projection.
        labels: [b, s], the input ids where supervised and `IGNORED` elsewhere, not shifted.
        rule: what the model does to the projection's output.
        weights: [b, s], by which each token's term is multiplied; by default 1.
        taught: what the teacher says of the same tokens, if there is one.
        fused: whether another package's kernel makes the loss; by default none does.
    """
    keep, targets = _targets(labels, weights, taught)
    chosen = hidden[keep]
    if not isinstance(head, nn.Linear) or head.weight.requires_grad:
        if taught is not None:
            targets = targets._replace(taught=taught._replace(states=rule(_wide(head(taught.states)))))
        return _sum(rule(_wide(head(chosen))), targets)
    weight, bias = whole(head.weight), None if head.bias is None else whole(head.bias)

    def in_pieces(hidden: Tensor) -> Tensor:
        return cast(Tensor, _PiecewiseNll.apply(hidden, weight, bias, rule, targets))  # type: ignore[no-untyped-call]

    chosen = chosen.to(weight.dtype)
    if fused is None or weights is not None or taught is not None:
        return in_pieces(chosen)
    return fused.choose(in_pieces, chosen, weight, bias, targets.ids, rule)(chosen)


class _PiecewiseNll(torch.autograd.Function):
    """Projection and cross-entropy, piece by piece; the gradient of the input is computed on the way."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, rule: LogitRule, targets: _Targets
    ) -> Tensor:
        """The sum of the terms of `hidden` [n, h], with a frozen projection `weight` [v, h], `bias` [v]."""
        ids, weights, taught = targets
        total = torch.zeros((), device=hidden.device, dtype=_wide(hidden[:0]).dtype)
        gradient = torch.empty_like(hidden)
        rows = max(1, _LOGITS // weight.shape[0])
        for start in range(0, len(ids), rows):
            piece = slice(start, start + rows)
            target = ids[piece, None]
            logits = rule(_wide(functional.linear(hidden[piece], weight, bias)))
            slope = rule.slope(logits)
            logs = logits.log_softmax(-1)
            terms, own = logs.gather(1, target), logs.new_ones(target.shape)
            if taught is not None:
                states = taught.states[piece].to(weight.dtype)
                teacher = rule(_wide(functional.linear(states, weight, bias))).log_softmax(-1)
                share = taught.shares[piece, None].to(logs.dtype)
                own, aim = own - share, share * teacher.exp()
                terms = own * terms + (aim * (logs - teacher)).sum(1, keepdim=True)
            total -= (terms if weights is None else terms * weights[piece, None]).sum()
            if ctx.needs_input_grad[0]:
                slopes = logs.exp_()
                slopes.scatter_add_(1, target, -own)
                if taught is not None:
                    slopes -= aim
                if isinstance(slope, Tensor) or slope != 1:
                    slopes *= slope
                if weights is not None:
                    slopes *= weights[piece, None]
                torch.mm(slopes.to(weight.dtype), weight, out=gradient[piece])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient of the input [n, h]."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), *[None] * 4


def _predicting(labels: Tensor) -> Tensor:
    """The positions [b, s] that predict a supervised token."""
    return functional.pad(labels[:, 1:] != IGNORED, (0, 1), value=False)


def _of_next(values: Tensor, keep: Tensor) -> Tensor:
    """The values [n] of the tokens that the positions `keep` predict, out of those of all tokens [b, s]."""
    return values.roll(-1, 1)[keep]


def _targets(labels: Tensor, weights: Tensor | None, taught: Taught | None) -> tuple[Tensor, _Targets]:
    """The positions [b, s] that predict a supervised token, and what they are held to."""
    keep = _predicting(labels)
    return keep, _Targets(
        _of_next(labels, keep), None if weights is None else _of_next(weights, keep), taught
    )


def _sum(logits: Tensor, targets: _Targets) -> Tensor:
    """As `nll_sum`, out of all logits [n, v]; those of the teacher are its `states`."""
    ids, weights, taught = targets
    if weights is None and taught is None:
        return functional.cross_entropy(_wide(logits), ids, reduction="sum")
    terms = functional.cross_entropy(_wide(logits), ids, reduction="none")
    if taught is not None:
        now, teacher = _wide(logits).log_softmax(-1), _wide(taught.states).log_softmax(-1)
        distance = functional.kl_div(now, teacher, reduction="none", log_target=True).sum(-1)
        terms = torch.lerp(terms, distance, taught.shares.to(terms.dtype))
    return (terms if weights is None else terms * weights).sum()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()
