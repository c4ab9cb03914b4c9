"""Writes docs/models.md: what the tests' own functions measure of a tiny model of every causal family.

PYTHONPATH=. python docs/write_models.py

It takes some minutes. tests/adapters/test_every_family.py holds each row to what it measures.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from transformers import __version__
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from medcare.export.gguf_architecture import ARCHITECTURES
from medcare.models.traits import Traits
from tests.adapters.every_family import Adapted, adapt
from tests.adapters.test_every_family import REFUSED
from tests.models.families import FAMILIES, LEFT_OUT, NOT_CAUSAL, tiny_config, tiny_family

PAGE = Path(__file__).parent / "models.md"
COLUMNS = ("family", "class", "trains", "feed-forward", "attention", "packs", "batches answers", "merges",
           "in 4.57", "GGUF")  # fmt: skip

_INTRODUCTION = """# Models

What was tried of every causal family that transformers {version} knows, on a model of it with two to four
small layers and random weights. Training doesn't go by this table: it puts the same questions to the model that
is there, with the attention kernel that is there.

| column | what it says |
|---|---|
| trains | whether branches stand beside its feed-forward weights, learn, and change nothing before they do |
| feed-forward, attention | the share of these weights that `adapters.feed_forward=auto` and `attention=auto` adapt |
| packs | whether `batching=packed` keeps examples apart; where it doesn't, `auto` groups by length, and `packed` is refused |
| batches answers | whether prompts of unlike lengths are answered together; else one length at a time, and served one by one |
| merges | the largest difference of the logits between a model with branches and the merged one; logits are of size 1 |
| in 4.57 | whether a merged folder computes the same in transformers 4.57 |
| GGUF | whether `medcare export --format gguf` writes it |

In every family that trains, padded batches, and packed ones where they are allowed, have the loss and the gradients
of their examples one by one (`tests/models/test_traits.py`), and answers are those of reading the whole row anew for
each token (`tests/generation/test_families.py`). Moshi's are, within its sliding window.

{totals}

"""


def row(family: str, measured: Adapted) -> list[str]:
    """The cells of a family; `measured` is what `adapt` found."""
    kind = f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]}`"
    rest = elsewhere(family)
    if family in NOT_CAUSAL:
        return [family, kind, "no: a token sees later ones or padding", *("–",) * 5, *rest]
    model = tiny_family(family)
    traits = Traits(model)
    packs, together = ("yes" if able else "no" for able in (traits.separates_packed_rows, traits.plain_cache))
    if family in REFUSED:
        return [family, kind, f"no: {REFUSED[family]}", "–", "–", packs, together, "–", *rest]
    shares = [f"{share:.0%}" for share in (measured.feed_forward, measured.attention)]
    return [family, kind, "yes", *shares, packs, together, f"{measured.merging:.0e}", *rest]


def elsewhere(family: str) -> list[str]:
    """What other programs make of a family's merged models: transformers 4.57, and those that read GGUF."""
    of_4 = json.loads((Path(__file__).parent / "transformers_4.json").read_text("utf-8"))
    return [of_4.get(family, "not tried"), "yes" if tiny_config(family).model_type in ARCHITECTURES else "no"]


def read() -> dict[str, dict[str, str]]:
    """The rows of the page as it stands, by family and column."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in table if len(cells) == len(COLUMNS)]
    return {cells["family"]: cells for cells in rows if cells["family"] in FAMILIES}


def page(rows: list[list[str]]) -> str:
    """The page of these rows."""
    cells = [dict(zip(COLUMNS, entry, strict=True)) for entry in rows]
    counts = [
        f"{sum(entry[name] == 'yes' for entry in cells)} {what}"
        for name, what in (("trains", "train"), ("packs", "can be packed"), ("in 4.57", "load in 4.57"),
                           ("GGUF", "are written as GGUF"))
    ]  # fmt: skip
    refused = [entry["family"] for entry in cells if entry["trains"] != "yes"]
    totals = f"Of {len(rows)} families {', '.join(counts)}. Refused: {', '.join(refused)}."
    table = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    left_out = "\n".join(f"- `{family}`: {why}" for family, why in LEFT_OUT.items())
    return (
        _INTRODUCTION.format(version=__version__, totals=totals)
        + "".join(f"| {' | '.join(entry)} |\n" for entry in table)
        + f"\nNot tried, since no small model could be made:\n\n{left_out}\n"
    )


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            able = family not in NOT_CAUSAL and family not in REFUSED
            rows.append(row(family, adapt(family, Path(folder)) if able else Adapted()))
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
