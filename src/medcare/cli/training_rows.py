"""Training rows on the terminal, as the model sees them."""

from __future__ import annotations

from collections.abc import Sequence

import typer

_LONGEST = 1200


def print_rows(rows: Sequence[Sequence[tuple[str, bool]]]) -> None:
    """Print rows with what the model learns to write between ⟦ and ⟧; of a long piece, its two ends.

    Args:
        rows: the pieces of each row's text, each with whether the loss covers it.
    """
    from rich.console import Console
    from rich.text import Text

    if not rows:
        return
    typer.echo("The first rows as the model sees them; what it learns to write is between ⟦ and ⟧:")
    for row in rows:
        text = Text()
        for piece, learned in row:
            shown = _shortened(piece)
            text.append(f"⟦{shown}⟧" if learned else shown, style="bold" if learned else "dim")
        Console(highlight=False).print(text, soft_wrap=True)
        typer.echo()


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} … ({len(text) - 2 * half:,} characters left out here) … {text[-half:]}"
