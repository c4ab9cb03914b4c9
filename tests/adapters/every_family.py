"""What becomes of a tiny model of a family when both stages' branches are put onto it, trained and merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from medcare.adapters.branch_files import load_branch, save_branches
from medcare.adapters.branches import stored_in, trained_in
from medcare.adapters.merge import merge_all
from medcare.adapters.targets import adapted_share
from medcare.adapters.tuner import adapted_layers, add_branches, remove_branch, trainable
from medcare.foundation.errors import AdapterError
from medcare.settings.config import AdapterConfig
from tests.models.families import VOCABULARY, tiny_family

CONFIG = AdapterConfig(rank=2, alpha=4, experts=3, top_k=2, dropout=0.0)


@dataclass(frozen=True)
class Adapted:
    """What was measured of a family.

    Attributes:
        refused: why no branches could be put on, or empty.
        feed_forward: share of the feed-forward weights that is adapted.
        attention: of the attention weights.
        at_first: largest difference of the logits that new branches make.
        without_gradient: parameters of branches that got none, or zeros, in both stages.
        made: largest difference of the logits that trained branches make.
        merging: that merging them makes.
        files: that writing and reading all of stage 1's makes.
    """

    refused: str = ""
    feed_forward: float = 0.0
    attention: float = 0.0
    at_first: float = 0.0
    without_gradient: tuple[str, ...] = ()
    made: float = 0.0
    merging: float = 0.0
    files: float = 0.0


def adapt(family: str, folder: Path) -> Adapted:
    """Measure a family; `folder` is for the branches' files."""
    model = tiny_family(family)
    for parameter in model.parameters():
        if not parameter.any():  # a factor that starts at zero would hide what it is multiplied with
            nn.init.normal_(parameter, std=0.1)
    before = model.state_dict()
    ids = torch.randint(3, VOCABULARY - 1, (2, 16), generator=torch.Generator().manual_seed(1))
    plain = _logits(model, ids)
    try:
        add_branches(model, "aggregate", CONFIG)
    except AdapterError as error:
        return Adapted(refused=str(error))
    shares = []
    for role in ("feed_forward", "attention"):
        adapted, total, _ = adapted_share(model, role)
        shares.append(adapted / max(total, 1))
    at_first = _difference(_logits(model, ids), plain)
    idle = _learn(model, "aggregate", ids)
    save_branches(model, folder, "base")
    other = tiny_family(family)
    other.load_state_dict({name: before[name] for name in other.state_dict()})
    for spec in stored_in(folder):
        load_branch(other, spec, folder / spec.path)
    files = _difference(_logits(other, ids), _logits(model, ids))
    remove_branch(model, "noise")
    add_branches(model, "align", CONFIG)
    idle += _learn(model, "align", ids)
    trained = _logits(model, ids)
    merge_all(model)
    assert not adapted_layers(model)
    return Adapted(
        "",
        *shares,
        at_first,
        tuple(idle),
        _difference(trained, plain),
        _difference(_logits(model, ids), trained),
        files,
    )


def _learn(model: PreTrainedModel, stage: str, ids: Tensor) -> list[str]:
    """Give every branch something to say; the names of parameters that a training step would leave alone."""
    parameters = trainable(model, trained_in(stage))
    torch.manual_seed(5)
    for name, parameter in parameters.items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    model(ids, use_cache=False).logits.logsumexp(-1).sum().backward()
    idle = [
        name for name, parameter in parameters.items() if parameter.grad is None or not parameter.grad.any()
    ]
    model.zero_grad()
    return idle


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return model(ids, use_cache=False).logits


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
