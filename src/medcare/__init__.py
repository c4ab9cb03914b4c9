"""Fine-tune a causal language model for medicine: aggregate knowledge, then align form (arXiv 2406.17484).

For research. Not a medical device, not for clinical decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medcare.folders import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers --help without loading torch."""
    if name == "load_model":
        from medcare.folders import load_model

        return load_model
    raise AttributeError(f"module 'medcare' has no attribute '{name}'")
