"""Keeping the alignment branch orthogonal to the knowledge branch (paper section 3.3).

The row spaces of their A are orthogonal when A_ka A_al^T = 0 [r_ka, r_al]. Then the alignment branch adds
nothing on an input that lies in the rows of A_ka, which are all that the knowledge branch reads. On any other
input both may act, and nothing keeps their B from writing to the same directions. `inputs` and `contrast`
keep A_al out of the inputs themselves. The ways:

- `l1`: the paper's penalty, the sum over layers of sum |A_ka A_al^T|;
- `frobenius`: the sum over layers of ||A_ka A_al^T||_F^2, whose gradient fades near zero;
- `projection`: no penalty; after each optimizer step A_al is projected onto the null space of A_ka, so
  the product is zero to round-off;
- `inputs`, `contrast`: likewise, onto the null space of the directions of `input_directions`;
- `none`.

The penalties depend on parameters only, never on a batch: a step adds them once, however many
micro-batches or devices it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from medcare.adapters.shards import overwrite, whole
from medcare.adapters.tuner import adapted_layers
from medcare.settings.config import Orthogonality


def branch_pairs(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (A_ka [r_ka, i], A_al [r_al, i]) of every layer that has both branches; [e, r, i] of experts."""
    for layer in adapted_layers(model, "alignment").values():
        if "knowledge" in layer.branches:
            yield layer.branch("knowledge").down, layer.branch("alignment").down


def penalty(model: nn.Module, kind: Orthogonality) -> Tensor | None:
    """The penalty to be weighted by lambda and added to the loss; None if `kind` has none.

    Returns:
        A scalar: the sum over layers of sum |A_ka A_al^T| (`l1`) or of its squared norm (`frobenius`).
    """
    if kind not in ("l1", "frobenius"):
        return None
    terms = [
        product.abs().sum() if kind == "l1" else product.square().sum()
        for product in (
            whole(knowledge) @ whole(alignment).mT for knowledge, alignment in branch_pairs(model)
        )
    ]
    return torch.stack(terms).sum() if terms else None


@torch.no_grad()
def project(model: nn.Module, kept_out: Mapping[str, Tensor] | None = None) -> None:
    """Project A_al onto the null space of some directions, in every layer and to round-off.

    Args:
        model: with knowledge and alignment branches.
        kept_out: for each layer by name, orthonormal rows [m, i] (see `input_directions`); by default the row
            space of A_ka, so that A_ka A_al^T = 0.
    """
    for name, layer in adapted_layers(model, "alignment").items():
        alignment = layer.branch("alignment").down
        if kept_out is not None:
            basis = kept_out[name].double().mT
        elif "knowledge" in layer.branches:
            # An orthonormal basis of A_ka's row space; QR is stable where the normal equations are not.
            basis = torch.linalg.qr(whole(layer.branch("knowledge").down).double().mT).Q
        else:
            continue
        wide = whole(alignment).double()
        overwrite(alignment, wide - (wide @ basis) @ basis.mT)


@torch.no_grad()
def measure(model: nn.Module) -> dict[str, float]:
    """How orthogonal the branches are now.

    Returns:
        `orthogonality`: sum |A_ka A_al^T|, averaged over layers; `cosine`: the mean absolute cosine
        between rows of A_ka and rows of A_al. Empty if no layer has both branches.
    """
    sums, cosines = [], []
    for knowledge, alignment in ((whole(a), whole(b)) for a, b in branch_pairs(model)):
        product = knowledge @ alignment.mT
        norms = knowledge.norm(dim=-1, keepdim=True) * alignment.norm(dim=-1).unsqueeze(-2)
        sums.append(product.abs().sum())
        cosines.append((product.abs() / norms.clamp_min(1e-12)).mean())
    if not sums:
        return {}
    return {
        "orthogonality": float(torch.stack(sums).mean()),
        "cosine": float(torch.stack(cosines).mean()),
    }
