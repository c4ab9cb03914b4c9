"""Which layers of a model are attention and which feed-forward, found from its architecture.

A decoder layer is an entry of the text model's list of layers. Of its weights, those in a part called
attention, by its class or its name, are attention; those in a part called MLP, feed-forward or experts are
feed-forward; and where a layer has no such part, its own linears are (OPT's fc1 and fc2). Norms, routers,
state-space mixers and attention to an encoder are neither. The towers of a multimodal model, for images or
sound, lie outside of its text model: training on text never reaches them.

The setting `auto` stands for all linears and experts of a role. Names are looked up in the text model alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeGuard

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from medcare.adapters.adapted_linear import Adapted, AdaptedLinear, Linear, widths
from medcare.adapters.experts import AdaptedExperts, ExpertWeight, takes_branches
from medcare.foundation.errors import AdapterError
from medcare.models.quantized import is_quantized
from medcare.settings.config import AUTO

Role = Literal["attention", "feed_forward"]
Layer = Linear | Adapted
"""What branches can stand beside: a linear, a weight of a block of experts, or the whole block."""

# Of classes, whose names say more than those of attributes, without the name of the family before it.
_ATTENTION_CLASS = re.compile(r"att(entio)?n|deltanet|retention", re.IGNORECASE)
_FEED_FORWARD_CLASS = re.compile(r"mlp|ffn|feedforward|moe|expert|intermediate|output$", re.IGNORECASE)
_ATTENTION = re.compile(r"(att(entio)?n|retention)s?$", re.IGNORECASE)
_FEED_FORWARD = re.compile(r"(mlp|ffn?|feed_?forward|moe|expert)(s|_block|_layer)?$", re.IGNORECASE)
# There is no encoder to attend to, and what picks or compresses far tokens has no gradient in short rows.
_NEITHER = re.compile(
    r"norm$|norm_|layernorm|cross_?att|encoder_?att|encdec|indexer|compressor|patcher|router", re.IGNORECASE
)
_ROUTERS = ("gate", "shared_expert_gate")


class Weight(NamedTuple):
    """A matrix, or a stack of them, in a decoder layer.

    Attributes:
        name: in the model: of its linear, or its own if it is no linear's.
        size: how many numbers it has.
        layer: what branches can stand beside; None if none can.
        holder: the class of the module that holds it.
        role: what it is part of.
    """

    name: str
    size: int
    layer: Layer | None
    holder: str
    role: Role | None = None


def find_layers(model: nn.Module, names: Iterable[str], role: Role | None = None) -> dict[str, Layer]:
    """The linears and experts of these names, adapted already or not.

    Args:
        model: any model.
        names: last names or dotted ones; or `auto` alone for all of the role.
        role: what `auto` means.

    Returns:
        The layers by their name in the model, in its order; before the weights of experts, their whole block.

    Raises:
        AdapterError: a name is none of the text model's, or no layer has that role.
    """
    wanted, there = set(names), _all_layers(model)
    if wanted == {AUTO}:
        chosen = {
            weight.name for weight in weights(model) if weight.role == role and weight.layer is not None
        }
        if not chosen and role == "feed_forward":
            raise AdapterError(_no_feed_forward(model))
    else:
        chosen = {name for name in there if any(_is_called(name, called) for called in wanted)}
        missing = [
            called for called in sorted(wanted) if not any(_is_called(name, called) for name in chosen)
        ]
        if missing:
            raise AdapterError(_advice(model, missing))
    return _with_blocks(there, chosen)


def layers_at(model: nn.Module, names: Collection[str]) -> dict[str, Layer]:
    """The linears and experts with exactly these names in the model; otherwise as `find_layers`."""
    there = _all_layers(model)
    missing = [name for name in names if name not in there]
    if missing:
        raise AdapterError(_advice(model, sorted(missing)))
    return _with_blocks(there, set(names))


def weights(model: nn.Module) -> list[Weight]:
    """Every weight matrix of the text model's decoder layers, with its role."""
    name, text = text_model(model)
    family = re.sub(r"(Text)?(Model|Decoder|Encoder|Transformer)$", "", type(text).__name__)
    matrices: list[Weight] = []
    seen: set[int] = set()
    for path, layers in _lists_of_layers(text):
        for index, layer in layers.named_children():
            prefix = _joined(name, path, index)
            within = list(_weights(layer, prefix, seen))
            roles = [_role(_containers(path, layer, prefix, weight), weight, family) for weight in within]
            has_part = "feed_forward" in roles
            for weight, own in zip(within, roles, strict=True):
                is_direct = weight.name.count(".") == prefix.count(".") + 1
                role = "feed_forward" if own is None and is_direct and not has_part else own
                matrices.append(weight._replace(role=None if role == "neither" else role))
    return matrices


def adapted_share(
    model: nn.Module, role: Role, chosen: Collection[str] | None = None
) -> tuple[int, int, Counter[str]]:
    """How much of a model's attention or feed-forward weights is adapted.

    Args:
        model: with branches or without.
        role: which weights.
        chosen: names of the weights that count as adapted; by default those that have branches.

    Returns:
        The numbers in adapted weights, the numbers in all, and those in the rest by the name of the weight.
    """
    adapted, rest = 0, Counter[str]()
    for weight in weights(model):
        if weight.role == role:
            has = isinstance(weight.layer, Adapted) and bool(weight.layer.branches)
            if has if chosen is None else weight.name in chosen:
                adapted += weight.size
            else:
                rest[f"{_last(weight.name)} ({weight.holder})"] += weight.size
    return adapted, adapted + rest.total(), rest


def text_model(model: Any) -> tuple[str, nn.Module]:
    """The part of a model that text goes through, with its name: of a multimodal one, the language model."""
    candidates = [model.get_decoder()] if hasattr(model, "get_decoder") else []
    candidates += [getattr(model, "base_model", model)]
    text = next((part for part in candidates if _lists_of_layers(part)), model)
    return next(name for name, module in model.named_modules() if module is text), text


def _lists_of_layers(text: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost lists of modules that have weights; XLM has two, of attention and of feed-forward."""
    level: list[tuple[str, nn.Module]] = [("", text)]
    while level:
        level = [
            (_joined(path, name), child) for path, module in level for name, child in module.named_children()
        ]
        lists: list[tuple[str, nn.Module]] = [
            (path, child)
            for path, child in level
            if isinstance(child, nn.ModuleList) and any(weight.ndim > 1 for weight in child.parameters())
        ]
        if lists:
            return lists
    return []


def _weights(module: nn.Module, name: str, seen: set[int]) -> Iterator[Weight]:
    """The weights in a module; of one that is in several places, at the first."""
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, AdaptedLinear) or _is_linear(module):
        in_features, out_features = widths(module)
        yield Weight(name, in_features * out_features, module, type(module).__name__)
        return
    if isinstance(module, AdaptedExperts) or takes_branches(module):
        block = module if isinstance(module, AdaptedExperts) else AdaptedExperts(module)
        for own, layer in block.weights.items():
            yield Weight(_joined(name, own), layer.weight.numel(), layer, type(block.base).__name__)
        return
    for own, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1 and min(weight.shape[-2:]) > 1 and not own.endswith("bias"):
            yield Weight(_joined(name, own), weight.numel(), None, type(module).__name__)
    for own, child in module.named_children():
        yield from _weights(child, _joined(name, own), seen)


def _containers(path: str, layer: nn.Module, prefix: str, weight: Weight) -> list[tuple[str, str]]:
    """Names and classes of the parts of the text model that a weight lies in, the outermost first."""
    parts = [(name, "") for name in path.split(".")]
    module = layer
    for name in weight.name.removeprefix(prefix).split(".")[1:-1]:
        module = module.get_submodule(name)
        parts.append((name, type(module).__name__))
    return parts


def _role(containers: list[tuple[str, str]], weight: Weight, family: str) -> Role | Literal["neither"] | None:
    parts = [(name, kind.removeprefix(family)) for name, kind in containers]
    texts = [text for part in parts for text in part]
    if any(_NEITHER.search(text) for text in (*texts, weight.holder.removeprefix(family))):
        return "neither"
    for name, kind in parts:
        if kind.endswith("DecoderLayer"):  # Zamba has one as a part of another
            kind = ""
        if _ATTENTION_CLASS.search(kind):
            return "attention"
        if _FEED_FORWARD_CLASS.search(kind) or (_FEED_FORWARD.search(name) and not _ATTENTION.search(name)):
            names = (*(name for name, _ in containers), _last(weight.name))
            return "neither" if any(name in _ROUTERS for name in names) else "feed_forward"
        if _ATTENTION.search(name):
            return "attention"
    return None


def _with_blocks(there: dict[str, Layer], chosen: set[str]) -> dict[str, Layer]:
    chosen = chosen | {name.rpartition(".")[0] for name in chosen if isinstance(there[name], ExpertWeight)}
    return {name: layer for name, layer in there.items() if name in chosen}


def _all_layers(model: nn.Module) -> dict[str, Layer]:
    """All that branches can stand beside in the text model, by name; what branches are made of is not."""
    head = _head(model)
    name, text = text_model(model)
    layers: dict[str, Layer] = {}
    inside: set[nn.Module] = set()
    for path, module in text.named_modules(prefix=name):
        if module in inside or module is head:
            continue
        if isinstance(module, AdaptedExperts) or takes_branches(module):
            block = module if isinstance(module, AdaptedExperts) else AdaptedExperts(module)
            layers[path] = block
            layers |= {_joined(path, own): layer for own, layer in block.weights.items()}
            inside.update(module.modules())
        elif isinstance(module, AdaptedLinear) or _is_linear(module):
            layers[path] = module
            inside.update(module.modules())
    return layers


def _is_linear(module: nn.Module) -> TypeGuard[Linear]:
    """Whether a module computes W x + bias; a class of its own may route, or multiply block by block."""
    if not isinstance(module, nn.Linear):
        return isinstance(module, Conv1D)
    if type(module).forward is nn.Linear.forward or is_quantized(module.weight):
        return True
    x = torch.ones(1, module.in_features, device=module.weight.device, dtype=module.weight.dtype)
    try:
        y = module(x)
        if not isinstance(y, torch.Tensor) or y.shape != (1, module.out_features):
            return False
        return y.is_meta or torch.allclose(y, functional.linear(x, module.weight, module.bias), rtol=0.05)
    except (RuntimeError, TypeError, ValueError):
        return False


def _is_called(name: str, called: str) -> bool:
    return name == called or name.endswith(f".{called}")


def _head(model: Any) -> nn.Module | None:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _advice(model: nn.Module, missing: list[str]) -> str:
    head, kind, layers = _head(model), type(model).__name__, _all_layers(model)
    others = {name: module for name, module in model.named_modules() if name not in layers}
    for called in missing:
        matching = [module for name, module in others.items() if _is_called(name, called)]
        if any(module is head for module in matching):
            reason = f"{called} is {kind}'s projection onto the vocabulary, beside which no branch can stand."
            break
        if matching and not any(_is_called(name, called) for name in layers):
            reason = f"{called} is no linear of {kind}'s text model; training on text adapts that alone."
            break
    else:
        reason = f"No linear layer is called {' or '.join(missing)}."
    counts = Counter(_last(name) for name, layer in layers.items() if not isinstance(layer, AdaptedExperts))
    if not counts:
        return f"{reason} {kind} has no linears and no experts to put branches beside. Choose another base."
    there = ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))
    return (
        f"{reason} {kind} has these: {there}. Set adapters.feed_forward and adapters.attention to names out "
        "of this list, or leave them at auto."
    )


def _no_feed_forward(model: nn.Module) -> str:
    kind = type(model).__name__
    others = sorted(
        {
            f"{_last(weight.name)} ({weight.holder})"
            for weight in weights(model)
            if weight.role == "feed_forward"
        }
    )
    reason = (
        f"{kind}'s feed-forward weights have a form beside which no branch can stand: {', '.join(others)}."
        if others
        else f"{kind} has no feed-forward layers, in which knowledge is learned."
    )
    there = Counter(_last(name) for name in _all_layers(model))
    names = ", ".join(f"{name} ({count}x)" for name, count in sorted(there.items())) or "none"
    return (
        f"{reason} Its linears are: {names}. Choose another base, or name those to adapt in "
        "adapters.feed_forward and set adapters.partial=true."
    )


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
