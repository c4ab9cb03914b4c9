"""GPU kernels of other packages, where they are installed, compute the same, and are faster.

    FlashAttention  for packed rows: it reads each example by itself, where torch's attention reads the whole
                    row and masks what is another example's
    Liger           for the loss: projection and cross-entropy in one kernel, in the place of `losses`' pieces

Nothing is believed: attention has to keep packed rows apart on the model at hand, and Liger's kernel has to
give the loss and the gradient of our pieces, and to be faster, on the first batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medcare.foundation.progress import say
from medcare.models.traits import LogitRule, Traits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from medcare.settings.config import Layout

Nll = Callable[[Tensor], Tensor]
"""The summed negative log-likelihood as a function of the hidden states."""
_FLASH = "flash_attention_2"
_ROUNDS = 5


def set_attention(model: PreTrainedModel, layout: Layout) -> None:
    """Let FlashAttention read packed rows, if it can on this model and device; else nothing changes."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    former = model.config._attn_implementation
    on_gpu = model.device.type == "cuda" and model.dtype in (torch.bfloat16, torch.float16)
    if layout != "packed" or former != "sdpa" or not on_gpu or not is_flash_attn_2_available():
        return
    try:
        model.set_attn_implementation(_FLASH)
    except (ImportError, ValueError):  # not made for it
        return
    if not Traits.of(model).separates_packed_rows:
        model.set_attn_implementation(former)


def liger_nll(weight: Tensor, bias: Tensor | None, targets: Tensor, cap: float | None) -> Nll:
    """Liger's fused projection and cross-entropy with a frozen `weight` [v, h], for `targets` [n]."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    def nll(hidden: Tensor) -> Tensor:
        loss: Tensor = liger_fused_linear_cross_entropy(
            hidden, weight, targets, bias=bias, reduction="sum", softcap=cap
        )
        return loss

    return nll


class FusedLoss:
    """Whether one model's loss is made by Liger's kernel.

    Attributes:
        used: None until the first batch that it could be used for tells; a continued run keeps what it was.
    """

    def __init__(self, used: bool | None = None) -> None:
        self.used = used

    def choose(
        self, ours: Nll, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, rule: LogitRule
    ) -> Nll:
        """What makes the loss of `hidden` [n, h]: `ours`, or Liger's kernel where it is better.

        It knows no weights of tokens and no teacher: batches with these must not come here.
        """
        if self.used is False or rule.scale != 1 or not len(hidden) or not _can_fuse(hidden):
            return ours
        theirs = liger_nll(weight, bias, targets, rule.cap)
        if self.used is None and torch.is_grad_enabled():
            self.used = _is_better(theirs, ours, hidden)
        return theirs if self.used else ours


def _can_fuse(hidden: Tensor) -> bool:
    return hidden.device.type == "cuda" and find_spec("liger_kernel") is not None


def _is_better(theirs: Nll, ours: Nll, hidden: Tensor) -> bool:
    """Whether one gives the loss and the gradient of the other, in less time."""
    try:
        same = _agree(*(_with_gradient(nll, hidden) for nll in (theirs, ours)))
    except Exception as error:  # a kernel that can't be built here
        say(f"Liger's fused loss can't be used here ({type(error).__name__}): MedCare makes the loss itself.")
        return False
    if not same:
        say(
            "Liger's fused loss gives another gradient than whole logits here: MedCare makes the loss itself."
        )
        return False
    mine, fused = [], []
    for _ in range(_ROUNDS):
        mine.append(_seconds(ours, hidden))
        fused.append(_seconds(theirs, hidden))
    ratio = sorted(fused)[_ROUNDS // 2] / sorted(mine)[_ROUNDS // 2]
    say(f"Loss: Liger's fused kernel takes {ratio:.2f} of the time of MedCare's pieces; the faster is used.")
    return ratio < 1


def _with_gradient(nll: Nll, hidden: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = hidden.detach().requires_grad_()
        loss = nll(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach().float(), gradient.float()


def _agree(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> bool:
    """Whether losses and gradients [n, h] differ by round-off alone."""
    (loss, gradient), (other_loss, other_gradient) = left, right
    same_loss = (loss - other_loss).abs() <= 1e-3 * other_loss.abs()
    return bool(same_loss & ((gradient - other_gradient).norm() <= 0.02 * other_gradient.norm()))


def _seconds(nll: Nll, hidden: Tensor) -> float:
    _wait(hidden.device)
    start = time.perf_counter()
    _with_gradient(nll, hidden)
    _wait(hidden.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
