from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from medcare.data.readers import conversations
from medcare.models.base_model import load_tokenizer
from medcare.text.batches import collate
from medcare.text.chat_template import render_all
from medcare.text.corpus import Corpus
from tests.data.batch_digests import digest_of_batches, write_rows

# A template that writes earlier answers otherwise than the last one, so that each answer is a row of its own.
APART = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '' if loop.last or m.role != 'assistant' else 'before: ' }}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Made when all rows were lists of Python integers, before there was a corpus.
DIGESTS = {
    ("own", "grouped"): "9f2f620900971097292073e0610e62b81eb8f5305754de42b2e31a09a40854d0",
    ("own", "packed"): "9697b0b235039c91b732dbeda5d67956b07f96d247652535b55bdbcdd4117dbb",
    ("apart", "grouped"): "54edf8fd8271f14511962b6f4bdbab15adb9fe35641d55563a951fc12ff96082",
    ("apart", "packed"): "97f069fc59f1669d7cfe1e7f5509e63a2af765d86aa5710b707740fc3fc8b34f",
}


@pytest.fixture(scope="module", params=["own", "apart"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    loaded = load_tokenizer("embedded")
    if request.param == "apart":
        loaded.chat_template = APART
    return loaded


@pytest.mark.parametrize("layout", ["grouped", "packed"])
def test_batches_are_bit_for_bit_those_made_of_lists(tokenizer, layout, tmp_path: Path):
    files = write_rows(tmp_path / "own.jsonl", 150), write_rows(tmp_path / "former.jsonl", 60, seed=1)
    own, former = (
        [row for row in render_all(tokenizer, list(conversations(str(path)))) if len(row.ids) <= 300]
        for path in files
    )
    rows = Corpus.of(own) + Corpus.of(former)
    found = digest_of_batches(
        rows.lengths,
        len(own),
        layout,
        lambda numbers: collate([rows[number] for number in numbers], pad_id=2, layout=layout),
    )
    assert found == DIGESTS["apart" if tokenizer.chat_template == APART else "own", layout]
