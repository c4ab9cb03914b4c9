"""Finished stage folders with random branches, as training would leave them."""

from __future__ import annotations

import torch
from torch import nn

from medcare.adapters.loading import load_model
from medcare.adapters.tuner import add_branches, remove_branch
from medcare.models.base_model import load_base
from medcare.settings.config import AdapterConfig, ModelConfig, RunConfig
from medcare.settings.run_folder import claim
from medcare.training.stages import save

ADAPTERS = AdapterConfig(rank=4, alpha=10, experts=4, top_k=2, dropout=0.0)


def shake(model, seed=0):
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)


def stage_folders(base, root, adapters=ADAPTERS, dtype="float32"):
    """Write root/aggregate and root/align.

    Returns:
        The model of each, with its branches; the first without noise.
    """
    config = RunConfig(model=ModelConfig(base=str(base), device="cpu", dtype=dtype), adapters=adapters)
    facts = {"base": str(base), "data": "0" * 64, "result": {"steps": 3, "tokens": 120}}
    model = load_base(str(base), device=torch.device("cpu"), dtype=torch.float32).eval()
    add_branches(model, "aggregate", adapters)
    shake(model, 1)
    first = {"stage": "aggregate", "from": None, "data": facts["data"]}
    claim(root / "aggregate", config, first)
    save(model, root / "aggregate", config, {**first, **facts})
    remove_branch(model, "noise")
    aggregate = model
    model = load_model(root / "aggregate", device="cpu", dtype="float32", noise=False)
    add_branches(model, "align", adapters)
    shake(model, 2)
    second = {"stage": "align", "from": str(root / "aggregate"), "data": facts["data"]}
    claim(root / "align", config, second)
    save(model, root / "align", config, {**second, **facts}, start=root / "aggregate")
    return aggregate, model.eval()
