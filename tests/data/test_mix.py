"""Training mixes: shares add up, rows are shuffled and traceable, the same recipe gives the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medcare.data.mix import build
from medcare.data.readers import conversations
from medcare.data.recipe import Recipe, load_recipe, shares
from medcare.foundation.errors import ConfigError, DataError
from medcare.foundation.storage import file_hash
from tests.data.readers.samples import SAMPLES, write


def pairs(name: str, count: int) -> list[dict[str, str]]:
    return [
        {"instruction": f"{name} question {number}", "output": f"answer {number}"} for number in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "big.jsonl", pairs("big", 100))
    write(tmp_path / "small.json", pairs("small", 10))
    return tmp_path


def recipe(folder: Path, **settings: Any) -> Path:
    tree = {
        "sources": [{"name": "big", "data": "big.jsonl"}, {"name": "small", "data": "small.json"}],
        **settings,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def mix(folder: Path, **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    out = folder / "mix.jsonl"
    manifest = build(recipe(folder, **settings), out)
    return manifest, list(conversations(str(out)))


def test_everything_once_by_default(folder: Path) -> None:
    manifest, talks = mix(folder)
    assert (manifest["rows"], len(talks)) == (110, 110)
    assert {talk.messages[0].content for talk in talks} == {
        f"{name} question {number}"
        for name, count in (("big", 100), ("small", 10))
        for number in range(count)
    }
    assert [talk.source for talk in talks[:20]] != ["big"] * 20 or [t.source for t in talks[-10:]] != [
        "small"
    ] * 10


def test_ids_name_source_and_row_and_are_unique(folder: Path) -> None:
    _, talks = mix(folder, total=300)
    assert len({talk.id for talk in talks}) == 300
    for talk in talks:
        row = int(talk.id.partition("/")[2].partition("#")[0])
        assert talk.id.startswith(f"{talk.source}/")
        assert talk.messages[0].content == f"{talk.source} question {row - 1}"


def test_temperature_brings_the_shares_closer(folder: Path) -> None:
    by_temperature = {
        temperature: Counter(talk.source for talk in mix(folder, total=110, temperature=temperature)[1])
        for temperature in (1.0, 2.0, 1e6)
    }
    assert by_temperature[1.0] == {"big": 100, "small": 10}
    assert by_temperature[2.0] == {"big": 84, "small": 26}  # 10 : sqrt(10)
    assert by_temperature[1e6] == {"big": 55, "small": 55}


def test_repeated_rows_are_repeated_evenly(folder: Path) -> None:
    manifest, talks = mix(folder, total=110, temperature=1e6)
    times = Counter(talk.messages[0].content for talk in talks if talk.source == "small")
    assert len(times) == 10
    assert set(times.values()) == {5, 6}
    assert [(source["used"], source["rows"]) for source in manifest["sources"]] == [(55, 55), (10, 55)]


def test_a_cap_draws_rows_at_random(folder: Path) -> None:
    sources = [{"name": "big", "data": "big.jsonl", "cap": 20}, {"name": "small", "data": "small.json"}]
    manifest, talks = mix(folder, sources=sources)
    rows = {int(talk.id.partition("/")[2]) for talk in talks if talk.source == "big"}
    assert len(rows) == 20
    assert max(rows) > 20
    assert manifest["rows"] == 30


def test_weights_multiply_shares(folder: Path) -> None:
    sources = [{"name": "big", "data": "big.jsonl"}, {"name": "small", "data": "small.json", "weight": 10}]
    _, talks = mix(folder, sources=sources, total=40)
    assert Counter(talk.source for talk in talks) == {"big": 20, "small": 20}


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(folder: Path) -> None:
    first, second, other = (mix(folder, total=50, seed=seed)[0]["sha256"] for seed in (1, 1, 2))
    assert first == second != other
    # Pinned: it must not depend on the machine or the Python version.
    assert first == "0138987e68cb2c1d6eea42f651b6a5e42b4822675f0e93c3032d76a566598c36"


def test_the_manifest_says_what_the_mix_was_made_of(folder: Path) -> None:
    manifest, _ = mix(folder, seed=5)
    assert json.loads((folder / "mix.jsonl.manifest.json").read_text()) == manifest
    assert manifest["sha256"] == file_hash(folder / "mix.jsonl")
    big = manifest["sources"][0]
    assert big["files"] == {str(folder / "big.jsonl"): file_hash(folder / "big.jsonl")}
    assert (manifest["seed"], big["conversations"], big["bad_rows"]) == (5, 100, 0)


def test_bad_rows_are_set_aside_and_counted(folder: Path) -> None:
    write(folder / "small.json", [*pairs("small", 2), {"instruction": "no answer", "output": ""}])
    manifest, talks = mix(folder)
    assert (manifest["sources"][1]["bad_rows"], len(talks)) == (1, 102)
    bad = [json.loads(line) for line in (folder / "mix.jsonl.bad.jsonl").read_text().splitlines()]
    assert [(row["source"], row["number"], row["reason"]) for row in bad] == [
        ("small", 3, "empty answer: turn 2")
    ]
    write(folder / "small.json", pairs("small", 2))
    mix(folder)
    assert not (folder / "mix.jsonl.bad.jsonl").exists()


def test_patterns_and_exams_are_sources(folder: Path) -> None:
    (folder / "exams").mkdir()
    for name in ("a.csv", "b.csv"):
        write(folder / "exams" / name, SAMPLES["cmmlu"][1])
    manifest, talks = mix(folder, sources=[{"name": "exams", "data": "exams/*.csv", "format": "cmmlu"}])
    assert len(manifest["sources"][0]["files"]) == 2
    assert [talk.messages for talk in talks] == [SAMPLES["cmmlu"][2]] * 2


def test_nothing_is_left_behind_when_a_source_fails(folder: Path) -> None:
    (folder / "mix.jsonl").write_text("before\n")
    write(folder / "small.json", [{"instruction": "q", "output": ""}])
    with pytest.raises(DataError, match="small gives no conversation: all of its 1 rows are bad"):
        mix(folder)
    assert (folder / "mix.jsonl").read_text() == "before\n"
    assert {path.name for path in folder.iterdir()} == {"big.jsonl", "small.json", "recipe.yaml", "mix.jsonl"}


SOURCE = {"name": "a", "data": "a.jsonl"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "sources must list at least one"),
        ({"sources": []}, "sources must list at least one"),
        ({"sources": [{"data": "a"}]}, "sources.name must be given"),
        ({"sources": [{"name": "a"}]}, "sources.data must be given"),
        ({"sources": [SOURCE, SOURCE]}, "each name must be there once, got 'a'"),
        ({"sources": [{**SOURCE, "wieght": 2}]}, "Did you mean 'sources.weight'"),
        ({"sources": [SOURCE], "temprature": 2}, "Did you mean 'temperature'"),
        ({"sources": [{**SOURCE, "weight": 0}]}, "sources.weight must be above 0"),
        ({"sources": [{**SOURCE, "weight": float("nan")}]}, "sources.weight must be above 0"),
        ({"sources": [{**SOURCE, "cap": 0}]}, "sources.cap must be at least 1"),
        ({"sources": [{**SOURCE, "format": "alpacca"}]}, "sources.format must be one of"),
        ({"sources": [SOURCE], "temperature": 0}, "temperature must be above 0"),
        ({"sources": [SOURCE], "total": 0}, "total must be from 1"),
        ({"sources": [SOURCE], "seed": "x"}, "seed must be a whole number"),
        ({"sources": {"name": "a"}}, "sources must be a list"),
        ({"sources": ["a"]}, "sources must be a group"),
    ],
)
def test_recipes_that_are_none_say_why(tree, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("temperature: 2\nsources:\n  - {name: a, data: a.jsonl, cap: 5}\n")
    found = load_recipe(path)
    assert isinstance(found, Recipe)
    assert (found.temperature, found.total, found.sources[0].cap, found.sources[0].weight) == (
        2.0,
        None,
        5,
        1.0,
    )


sources = st.lists(st.tuples(st.integers(1, 10**7), st.floats(1e-3, 1e3)), min_size=1, max_size=8)


@given(sources, st.floats(0.05, 100), st.one_of(st.none(), st.integers(1, 10**7)))
def test_shares_add_up(sized, temperature: float, total: int | None) -> None:
    sizes, weights = [size for size, _ in sized], [weight for _, weight in sized]
    rows = shares(sizes, weights, temperature, total)
    assert sum(rows) == (sum(sizes) if total is None else total)
    assert min(rows) >= 0
    if temperature == 1 and len(set(weights)) == 1 and total is None:
        assert rows == sizes


@pytest.mark.parametrize("name", ["big.jsonl", "recipe.yaml", "small.json", "other"])
def test_no_source_is_written_over(folder: Path, name: str) -> None:
    write(folder / "other.manifest.json", pairs("other", 2))
    sources = [{"name": "all", "data": "*.json*"}]
    path = recipe(folder, sources=sources)
    before = {entry: entry.read_bytes() for entry in folder.iterdir()}
    with pytest.raises(DataError, match="is also an input"):
        build(path, folder / name)
    assert {entry: entry.read_bytes() for entry in folder.iterdir()} == before


def test_a_folder_is_no_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="is a folder; a file is required"):
        build(recipe(folder), Path())


@pytest.mark.parametrize(
    ("tree", "told"),
    [({"total": 10**30}, "total"), ({"sources": [{"name": "a", "data": "b", "weight": 1e300}]}, "weight")],
)
def test_a_recipe_has_upper_bounds(folder: Path, tree: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"{told} must be"):
        load_recipe(recipe(folder, **tree))
