"""NEFTune (Jain et al. 2023): noise on the embeddings in training, against learning texts by heart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def embedding_noise(embeddings: nn.Module, alpha: float) -> Iterator[None]:
    """Within the block, what a module that trains puts out, [b, s, h], gets uniform noise.

    It is at most alpha / sqrt(s h); there is none if alpha is 0.
    """

    def noisy(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training or not alpha:
            return output
        most = alpha / math.sqrt(output.shape[-2] * output.shape[-1])
        return output + output.new_empty(output.shape).uniform_(-most, most)

    hook = embeddings.register_forward_hook(noisy)
    try:
        yield
    finally:
        hook.remove()
