"""The two terms of the loss, each right under accumulation and on many devices.

A step's loss is  sum of token NLL / supervised tokens of the whole step  +  lambda * penalty.
The count runs over all micro-batches and devices of the step, so that how a batch is cut changes nothing;
the penalty depends on parameters only and enters once a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from medcare.data.batches import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def project_only(head: nn.Module, keep: Tensor) -> Iterator[None]:
    """Let the vocabulary projection see only the positions in `keep` [b, s] (boolean).

    The model then returns logits [n, v] instead of [b, s, v]. A hook on the head, rather than a call of
    the model's trunk, keeps whatever the model does after it, such as Gemma's soft-capping.
    """

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][keep], *inputs[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


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
    targets = labels[:, 1:]
    keep = functional.pad(targets != IGNORED, (0, 1), value=False)
    with project_only(head or model.get_output_embeddings(), keep):
        logits = model(**inputs, use_cache=False).logits
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return functional.cross_entropy(wide, targets[targets != IGNORED], reduction="sum")
