"""Every example of docs/data.md is read as what its heading says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medcare.data.mix import build
from medcare.data.readers import FORMATS, Bad, items, open_data

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
TEXT = DOCS.read_text(encoding="utf-8")
EXAMPLE = re.compile(r'### `(\w+)`\n(?:(?!###).)*?```\w+ title="([\w.-]+)"\n(.*?)```', re.DOTALL)
EXAMPLES = {name: (file, text) for name, file, text in EXAMPLE.findall(TEXT)}


def test_there_is_an_example_of_every_format() -> None:
    assert set(EXAMPLES) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    file, text = EXAMPLES[name]
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    reading = open_data(str(path), name if FORMATS[name].by_name else None)
    assert reading.format == name
    records = [record for _, record in reading.conversations()]
    assert records
    assert not [record for record in records if isinstance(record, Bad)]
    if FORMATS[name].tests:
        assert len(list(items(str(path)))) == len(records)


def test_the_recipe_builds(tmp_path: Path) -> None:
    (recipe,) = re.findall(r'```yaml title="recipe.yaml"\n(.*?)```', TEXT, re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    for name in ("cmexam", "sharegpt"):
        file, text = EXAMPLES[name]
        (tmp_path / file).write_text(text, encoding="utf-8")
    manifest = build(tmp_path / "recipe.yaml", tmp_path / "mix.jsonl")
    assert manifest["rows"] == 8
