"""The main directions of a layer's inputs on a kind of data, to keep the alignment branch out of them.

A branch B A changes nothing on inputs that A maps to zero. So what stage 2 must leave alone is best described
by the *inputs* that stage 1's data gives a layer. Their second moment is C = E[x x^T], and a few of its
leading eigenvectors hold most of the energy E[|A x|^2] that any A lets through. (The paper's condition, that
the rows of A_al and A_ka are orthogonal, says nothing about inputs and hardly lowers that energy, see
docs/study.md.) This is the idea of gradient projection for continual learning (GPM, arXiv 2103.09762;
Adam-NSCL, arXiv 2103.07113), applied to A.

- `leading`: the fewest eigenvectors of C that hold the wanted share of the energy;
- `contrasting`: directions that hold the same share, beginning with those that knowledge uses most in
  proportion to the forms: generalised eigenvectors of C against the second moment of the forms' inputs.

C is gathered in float32 as a sketch C Omega, with Omega [i, 512] random and orthonormal; Nystroem's
approximation gives the leading eigenvectors out of it (Tropp et al., arXiv 1706.05736). Up to 512 features it
is exact. The first token of each example is left out: in many models its activations are a hundred times as
large as the others and carry no information.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Json
from torch import Tensor, nn

from medcare.adapters.shards import whole
from medcare.adapters.tuner import adapted_layers
from medcare.foundation.errors import AdapterError
from medcare.foundation.outside import Outside, held_to
from medcare.models.tensor_files import load_metadata, load_tensors, save_tensors

FILE = "inputs.safetensors"
SKETCH = 512
"""Columns of the sketch, and the most directions that are known of a layer."""

_ROUND_OFF = 1e-6  # of the energy; what is below this share of the largest is round-off of float32
_FLOOR = 1e-2  # of the forms' mean energy in a direction, below which no direction counts as unused by them


@dataclass(frozen=True)
class Directions:
    """What is known of the second moment of a layer's inputs.

    Attributes:
        basis: [k, i], orthonormal rows, by falling energy.
        energy: [k], the mean square of the inputs along each.
        total: the mean square of the whole inputs.
    """

    basis: Tensor
    energy: Tensor
    total: float


class Sketch:
    """Gathers C Omega of one layer's inputs.

    Args:
        features: their width, i.
        device: where they are.
        name: of the layer; it seeds Omega, so that all processes draw the same.
    """

    def __init__(self, features: int, device: torch.device, name: str) -> None:
        self.omega: Tensor | None = None
        if features > SKETCH:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            drawn = torch.randn(features, SKETCH, generator=generator)
            self.omega = torch.linalg.qr(drawn).Q.to(device)
        self.product = torch.zeros(features, min(features, SKETCH), device=device)
        self.sums = torch.zeros(2, device=device, dtype=torch.float64)  # squares, tokens

    def add(self, x: Tensor) -> None:
        """Count inputs [t, i]."""
        x = x.float()
        self.product.addmm_(x.T, x if self.omega is None else x @ self.omega)
        self.sums += torch.stack([x.square().sum().double(), self.sums.new_tensor(float(len(x)))])

    def directions(self) -> Directions:
        """The leading eigenvectors of the mean of x x^T."""
        squares, tokens = self.sums.tolist()
        product = self.product.double().cpu() / max(tokens, 1.0)
        if self.omega is None:
            energy, vectors = torch.linalg.eigh((product + product.T) / 2)
            energy, vectors = energy.flip(0), vectors.flip(1)
        else:
            energy, vectors = _nystroem(product, self.omega.double().cpu())
        kept = energy > _ROUND_OFF * energy[0]
        return Directions(vectors.T[kept].float(), energy[kept].float(), squares / max(tokens, 1.0))


@contextmanager
def sketching(model: nn.Module) -> Iterator[_Gathering]:
    """Within the block, every forward pass is counted, at each linear with a knowledge branch.

    Before each pass, set `keep` [b, s] of what is yielded: the tokens that count.

    Raises:
        AdapterError: a layer is a stack of experts.
    """
    linears = adapted_layers(model, "knowledge")
    stacked = next((name for name, linear in linears.items() if linear.stack), None)
    if stacked is not None:
        raise AdapterError(
            f"{stacked} is many experts in one tensor, each with inputs of its own: what they read is not "
            "gathered. Choose align.orthogonality=projection or none."
        )
    gathering = _Gathering()
    hooks = [linear.register_forward_pre_hook(gathering.hook(name)) for name, linear in linears.items()]
    try:
        yield gathering
    finally:
        for hook in hooks:
            hook.remove()


def _place(x: Tensor) -> tuple[Any, ...]:
    """Where a tensor's numbers lie: ZeRO-3 gives each linear a view of its own of what they all read."""
    return x.data_ptr(), x.shape, x.stride()


class _Gathering:
    """The sketches of a model's linears; those that read the same tensor share one.

    Attributes:
        keep: [b, s], which tokens of the next pass count.
        sketches: by the name of the first linear that reads the input.
        same: for every linear, the name under which its input is sketched.
    """

    def __init__(self) -> None:
        self.keep = torch.zeros(0, dtype=torch.bool)
        self.sketches: dict[str, Sketch] = {}
        self.same: dict[str, str] = {}
        self._last: tuple[str, Tensor | None] = ("", None)

    def hook(self, name: str) -> Any:
        """Counts what comes to the linear of that name."""

        @torch.no_grad()
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            first, tensor = self._last
            if tensor is not None and _place(x) == _place(tensor):
                self.same[name] = first
                return
            self._last = (name, x)
            self.same[name] = name
            if name not in self.sketches:
                self.sketches[name] = Sketch(x.shape[-1], x.device, name)
            self.sketches[name].add(x.reshape(-1, x.shape[-1])[self.keep.flatten().to(x.device)])

        return count

    def directions(self) -> dict[str, Directions]:
        """By the name of every linear."""
        found = {name: sketch.directions() for name, sketch in self.sketches.items()}
        return {name: found[first] for name, first in self.same.items()}


def leading(knowledge: Directions, share: float) -> Tensor:
    """The fewest directions [m, i] that hold this share of the energy of the knowledge's inputs."""
    return knowledge.basis[: _count(knowledge.energy, knowledge.total, share)]


def contrasting(knowledge: Directions, forms: Directions, share: float) -> Tensor:
    """Directions [m, i] that hold this share, beginning with those that knowledge uses most beside forms.

    A row of A in the span of the generalised eigenvectors v, C_k v = mu C_f v, with small mu responds to
    forms more than to knowledge. That span is all that is orthogonal to C_f v for every v with large mu.
    """
    # In the coordinates of what either uses, so that nothing is [i, i].
    joint = torch.linalg.qr(torch.cat([knowledge.basis, forms.basis]).double().T).Q
    of_knowledge, of_forms = _within(knowledge, joint), _within(forms, joint)
    floor = _FLOOR * of_forms.diagonal().mean()
    root = torch.linalg.cholesky(of_forms + floor * torch.eye(len(of_forms), dtype=torch.float64))
    half = torch.linalg.solve_triangular(root, of_knowledge, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.T, upper=False)
    vectors = torch.linalg.eigh((whitened + whitened.T) / 2).eigenvectors.flip(1)
    basis = torch.linalg.qr(root @ vectors).Q  # its first m columns span the first m directions, for every m
    energy = (basis * (of_knowledge @ basis)).sum(0)
    kept_out: Tensor = (joint @ basis).T[: _count(energy, knowledge.total, share)].float()
    return kept_out


def heard(model: nn.Module, directions: Mapping[str, Directions]) -> dict[str, float]:
    """How much of the inputs' energy the alignment branch's A lets through, by layer.

    It is relative to what as many random rows of the same length would let through: 1 means that A is not
    constrained, 0 that nothing passes.
    """
    shares = {}
    for name, layer in adapted_layers(model, "alignment").items():
        rows, entry = whole(layer.branch("alignment").down).detach().double().cpu(), directions[name]
        through = ((rows @ entry.basis.double().T).square() * entry.energy.double()).sum()
        shares[name] = float(through / (rows.square().sum() * entry.total / rows.shape[1]))
    return shares


def check_room(kept_out: Mapping[str, Tensor], rank: int) -> None:
    """Raise AdapterError if a layer has fewer directions left than the alignment branch has rows."""
    for name, basis in kept_out.items():
        left = basis.shape[1] - basis.shape[0]
        if left < rank:
            raise AdapterError(
                f"{left} of {basis.shape[1]} input directions are left at {name}, fewer than the alignment "
                f"branch's rank {rank}. Lower align.input_energy."
            )


def save_directions(path: Path, directions: Mapping[str, Directions]) -> None:
    """Write them; linears that read the same input are written once. Raises StorageError."""
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    first_of: dict[int, str] = {}
    for name, entry in directions.items():
        same[name] = first_of.setdefault(id(entry), name)
        if same[name] == name:
            total = torch.tensor([entry.total], dtype=torch.float64)
            tensors |= {f"{name}.basis": entry.basis, f"{name}.energy": entry.energy, f"{name}.total": total}
    save_tensors(
        path, {key: value.contiguous() for key, value in tensors.items()}, {"same": json.dumps(same)}
    )


class SharedDirections(Outside):
    """Beside the tensors: of each module the one whose inputs it has, too."""

    same: Json[dict[str, str]]


def load_directions(path: Path) -> dict[str, Directions]:
    """What `save_directions` wrote.

    Raises:
        AdapterError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise AdapterError(
            f"{path} is missing: stage 1 must keep its inputs' directions for this kind of orthogonality. "
            "Train stage 1 again with this version, or choose another align.orthogonality."
        )
    tensors = load_tensors(path)
    same = held_to(load_metadata(path), SharedDirections, str(path), AdapterError).same
    found = {}
    for first in set(same.values()):
        parts = [tensors.get(f"{first}.{name}", torch.zeros(0)) for name in ("basis", "energy", "total")]
        if [part.ndim for part in parts] != [2, 1, 1] or len(parts[1]) != len(parts[0]) or len(parts[2]) != 1:
            raise AdapterError(f"{path} does not hold the directions of {first:.60}. Train stage 1 again.")
        found[first] = Directions(parts[0], parts[1], float(parts[2]))
    return {name: found[first] for name, first in same.items()}


def _nystroem(product: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of C out of C Omega, by falling size."""
    shift = torch.finfo(torch.float32).eps * product.norm()  # keeps the factor below positive definite
    product = product + shift * omega
    core = omega.T @ product
    root = torch.linalg.cholesky((core + core.T) / 2)
    tall = torch.linalg.solve_triangular(root, product.T, upper=False).T
    # Out of the small Gram matrix, a third of the time of the singular values of `tall`.
    energy, turns = torch.linalg.eigh(tall.T @ tall)
    energy, turns = energy.flip(0), turns.flip(1)
    vectors = tall @ (turns / energy.clamp_min(torch.finfo(energy.dtype).tiny).sqrt())
    return (energy - shift).clamp_min(0), vectors


def _within(directions: Directions, joint: Tensor) -> Tensor:
    part = directions.basis.double() @ joint
    return part.T @ (directions.energy.double()[:, None] * part)


def _count(energy: Tensor, total: float, share: float) -> int:
    """How many come before the share of the energy is reached; all, if it never is."""
    reached = energy.double().cumsum(0) >= share * total * (1 - 1e-6)
    return int((~reached).sum()) + 1 if bool(reached.any()) else len(energy)
