"""NEFTune (Jain et al. 2023): noise on the embeddings in training, against learning texts by heart."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def add_embedding_noise(embeddings: nn.Module, alpha: float) -> RemovableHandle:
    """Add uniform noise of at most alpha / sqrt(s h) to the output [b, s, h] of a module that trains.

    Returns:
        What takes it off again.
    """

    def noisy(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        most = alpha / math.sqrt(output.shape[-2] * output.shape[-1])
        return output + output.new_empty(output.shape).uniform_(-most, most)

    return embeddings.register_forward_hook(noisy)
