"""Counting the bytes of tensors while a training step runs, by what they are for.

It sees what PyTorch's dispatcher sees: the result of every operation, real or fake (a fake tensor has a
shape and a device but no memory). Scratch space inside of a kernel is not seen. torch's own MemTracker
(torch.distributed._tools) would do, but it refuses models with frozen parameters.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

KINDS = {
    "weights": "frozen weights",
    "adapters": "adapters (float32)",
    "gradients": "their gradients",
    "optimizer": "AdamW's moments",
    "activations": "activations",
    "attention": "attention",
    "logits": "logits and loss",
    "temporary": "backward, gathering, update",
}


class Ledger(TorchDispatchMode):
    """Bytes alive now, and at the fullest moment of each part of the step.

    Attributes:
        alive: bytes by kind.
        parts: for each part of the step, `alive` at its fullest moment, in the order of the parts.
        kind: what the storages made from here on are for.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: Counter[str] = Counter()
        self.parts: dict[str, Counter[str]] = {}
        self.kind = "temporary"
        self._part = ""
        self._most = 0
        self._known: dict[int, tuple[str, int]] = {}
        self._resize = torch.UntypedStorage.resize_

    def part(self, name: str) -> None:
        """From here on, the step is in this part; the same name twice is one part."""
        self._part = name
        self._most = self.parts[name].total() if name in self.parts else 0
        self._peak()

    def count(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Count tensors as of this kind, also if they were counted as another."""
        for tensor in tensors:
            self._add(_local(tensor).untyped_storage(), kind, again=True)

    def watch(self, module: nn.Module, kind: str) -> None:
        """What this module makes in its forward pass, recomputed or not, is of this kind."""
        former: list[str] = []

        def enter(*_: Any) -> None:
            former.append(self.kind)
            self.kind = kind

        def leave(*_: Any) -> None:
            self.kind = former.pop()

        module.register_forward_pre_hook(enter, prepend=True)
        module.register_forward_hook(leave)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it has made."""
        if any(hasattr(kind, "full_tensor") for kind in types):
            return NotImplemented  # a DTensor: what it does with its shards comes by again
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(_local(leaf).untyped_storage(), self.kind, again=False)
        return result

    def __enter__(self) -> Ledger:
        """Count from here on; FSDP2 frees and refills its buffers by resizing their storages."""
        resize = self._resize

        def counted(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            known = self._known.get(storage._cdata)
            if known is not None:
                self.alive[known[0]] += storage.nbytes() - known[1]
                self._known[storage._cdata] = (known[0], storage.nbytes())
                self._peak()
            return result

        torch.UntypedStorage.resize_ = counted  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop counting."""
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _add(self, storage: torch.UntypedStorage, kind: str, *, again: bool) -> None:
        key = storage._cdata
        known = self._known.get(key)
        if known is None:
            weakref.finalize(storage, self._free, key)
        elif not again:
            return
        else:
            self.alive[known[0]] -= known[1]
        self._known[key] = (kind, storage.nbytes())
        self.alive[kind] += storage.nbytes()
        self._peak()

    def _free(self, key: int) -> None:
        kind, size = self._known.pop(key)
        self.alive[kind] -= size

    def _peak(self) -> None:
        total = self.alive.total()
        if total > self._most:
            self._most = total
            self.parts[self._part] = Counter(self.alive)


def _local(tensor: Tensor) -> Tensor:
    local: Tensor = getattr(tensor, "_local_tensor", tensor)
    return local
