"""Which linears of a model get branches, by name; and what to say where a name is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn

from medcare.adapters.adapted_linear import AdaptedLinear
from medcare.foundation.errors import AdapterError

Linear = nn.Linear | AdaptedLinear


def find_linears(model: nn.Module, names: Iterable[str]) -> dict[str, Linear]:
    """Every linear whose last name, or whole dotted name, is in `names`, adapted already or not.

    Returns:
        The linears by their module name, in the model's order.

    Raises:
        AdapterError: a name matches no linear layer of the model.
    """
    wanted = set(names)
    found = {name: linear for name, linear in _linears(model).items() if {name, _last(name)} & wanted}
    missing = wanted - found.keys() - {_last(name) for name in found}
    if missing:
        raise AdapterError(_advice(model, sorted(missing)))
    return found


def _linears(model: nn.Module) -> dict[str, Linear]:
    """The model's linears by name; what a branch is made of is none of them."""
    linears: dict[str, Linear] = {}
    own: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            own.update(module.modules())
        if isinstance(module, AdaptedLinear) or (isinstance(module, nn.Linear) and module not in own):
            linears[name] = module
    return linears


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _advice(model: nn.Module, missing: list[str]) -> str:
    find_head: Any = getattr(model, "get_output_embeddings", None)
    head = find_head() if find_head else None
    counts = Counter(_last(name) for name, linear in _linears(model).items() if linear is not head)
    kind = type(model).__name__
    if not counts:
        return (
            f"{kind} has no linear layers to put branches beside: its own are of another kind, such as "
            "GPT-2's Conv1D or experts in one tensor. Choose a base like LLaMA, Qwen, Mistral or Gemma."
        )
    there = ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))
    return (
        f"No linear layer is called {' or '.join(missing)}. {kind} has these: {there}. "
        "Set adapters.feed_forward and adapters.attention to names out of this list."
    )
