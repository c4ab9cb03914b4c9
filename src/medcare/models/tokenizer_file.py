"""tokenizer.json, looked at before the library reads it: how much longer it can make a text.

Steps that replace one text by another are a program: forty of them that double every letter make a terabyte
of a word, and the library ends the process where there is no room. So what the steps of a tokenizer can make
of a character is multiplied, and refused beyond what any real one does.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

from pydantic import model_validator

from medcare.foundation.outside import Outside

_MOST_LONGER = 256  # times: 400,000 characters, with their places, are 2 GB then
_MOST_ADDED = 1_000  # characters or tokens around a text
_DEEPEST = 8
_SEQUENCES = ("normalizers", "decoders", "processors")

Part = dict[str, Any]


class TokenizerFile(Outside):
    """tokenizer.json, as far as a text can grow in it."""

    normalizer: Part | None = None
    post_processor: Part | None = None
    decoder: Part | None = None

    @model_validator(mode="after")
    def _stays_short(self) -> TokenizerFile:
        for name in ("normalizer", "post_processor", "decoder"):
            longer, added = 1.0, 0
            for step in _steps(getattr(self, name)):
                longer *= _longer(step)
                added += _added(step)
                if longer > _MOST_LONGER:
                    raise ValueError(f"its {name} may make a text {_MOST_LONGER} times as long")
                if added > _MOST_ADDED:
                    raise ValueError(f"its {name} may add {_MOST_ADDED:,} characters or tokens to a text")
        return self


def _steps(step: Any, depth: int = 0) -> Iterator[Part]:
    """The single steps of a step, which may be a sequence of others."""
    if step is None:
        return
    if not isinstance(step, dict) or depth > _DEEPEST:
        raise ValueError("steps are objects, and in few sequences")
    within = [other for key in _SEQUENCES if isinstance(step.get(key), list) for other in step[key]]
    for other in within:
        yield from _steps(other, depth + 1)
    if not within:
        yield step


def _longer(step: Part) -> float:
    """How many characters one can become, at most."""
    kind = step.get("type")
    if kind == "Replace":
        content = len(str(step.get("content", "")))
        pattern = step.get("pattern")
        given = pattern.get("String") if isinstance(pattern, dict) else None
        # An empty one fits between all characters, and who knows what an expression fits.
        return max(1.0, content / len(given) if isinstance(given, str) and given else 1.0 + content)
    if kind == "Precompiled":
        return max(1.0, float(_longest_mapped(step.get("precompiled_charsmap"))))
    if kind == "TemplateProcessing":
        texts = [_pieces(step.get(key), "Sequence") for key in ("single", "pair")]
        return max([1.0, *(float(names.count(name)) for names in texts for name in set(names))])
    return 1.0


def _longest_mapped(charsmap: Any) -> int:
    """The most characters that a SentencePiece map makes of one: it ends in its texts, each before a NUL."""
    try:
        data = base64.b64decode(charsmap or "", validate=True)
        (size,) = struct.unpack("<I", data[:4]) if data else (0,)
    except (TypeError, ValueError, struct.error):
        return 1  # the library refuses it
    return max(len(text.decode("utf-8", "replace")) for text in data[4 + size :].split(b"\0"))


def _added(step: Part) -> int:
    """How many characters or tokens come before and after a text."""
    if step.get("type") == "Prepend":
        return len(str(step.get("prepend", "")))
    if step.get("type") != "TemplateProcessing":
        return 0
    known = step.get("special_tokens")
    sizes = {
        name: len(entry["ids"])
        for name, entry in (known.items() if isinstance(known, dict) else ())
        if isinstance(entry, dict) and isinstance(entry.get("ids"), list)
    }
    templates = [_pieces(step.get(key), "SpecialToken") for key in ("single", "pair")]
    return max(sum(sizes.get(name, 1) for name in names) for names in templates)


def _pieces(template: Any, kind: str) -> list[str]:
    """The names of the texts, or of the special tokens, in a template."""
    pieces = [piece for piece in template if isinstance(piece, dict)] if isinstance(template, list) else []
    return [str(piece[kind].get("id")) for piece in pieces if isinstance(piece.get(kind), dict)]
