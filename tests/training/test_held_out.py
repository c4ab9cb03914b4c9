from __future__ import annotations

from dataclasses import replace

import pytest

from medcare.foundation.errors import DataError
from medcare.settings.config import ValidationConfig
from medcare.text.corpus import as_corpus
from medcare.training import stages
from medcare.training.held_out import held_out
from medcare.training.loop import Loop
from tests.training.test_loop import examples
from tests.training.test_stages import TALKS, config
from tests.training.test_validation import OTHERS, sourced


def test_rows_are_held_out_by_source_with_all_of_a_conversation():
    made = [
        replace(e, id=f"talk-{n // 2}", source="few" if n > 11 else "many") for n, e in enumerate(examples())
    ]
    for settings, many in (
        (ValidationConfig(rows=2), 2),
        (ValidationConfig(share=0.5), 3),
        (ValidationConfig(rows=9), 3),
    ):
        trained, apart = held_out(as_corpus(made), settings, seed=5)
        kept, out = ([(row.source, row.id) for row in part] for part in (trained, apart))
        assert not set(kept) & set(out)
        assert sorted([*kept, *out]) == sorted((e.source, e.id) for e in made)
        assert len({entry for entry in out if entry[0] == "many"}) == many
        assert len({entry for entry in out if entry[0] == "few"}) == 1
        again = held_out(as_corpus(made), settings, seed=5)[1]
        assert list(again) == list(apart)
    with pytest.raises(DataError, match="single conversation"):
        held_out(as_corpus([replace(e, id="one") for e in made]), settings, seed=5)


def test_copies_are_held_out_together():
    """Of a row that stands twice, in one source or two, with one id or two, both train or neither does."""
    made = sourced(16)
    copies = [replace(row, id=f"copy-{row.id}", source=source) for row in made for source in "abc"]
    for seed in range(5):
        trained, apart = held_out(as_corpus([*made, *copies]), ValidationConfig(share=0.5), seed)
        contents = [{tuple(row.ids) for row in part} for part in (trained, apart)]
        assert contents[0]
        assert contents[1]
        assert not contents[0] & contents[1]


def test_what_was_held_out_is_never_trained_on_whatever_becomes_of_the_files(
    tiny_base, tmp_path, monkeypatch, capsys
):
    """Neither in stage 2, nor in its replay, nor by a stage that goes on."""
    made = config(tiny_base)
    measuring = replace(made.aggregate, epochs=1, validation=ValidationConfig(share=0.5, every=100))
    loops = []
    monkeypatch.setattr(Loop, "run", lambda self, name: loops.append(self) or {"steps": 1})
    one = tmp_path / "one"
    stages.train("aggregate", replace(made, aggregate=measuring), TALKS, one, data_hash="x")
    apart = {tuple(row.ids) for row in loops[0].validator.validation.examples}
    assert len(apart) == 6
    # Since then the file has other rows before and behind, other ids, another source and another order.
    later = [replace(talk, id=f"new-{talk.id}", source="later") for talk in reversed(TALKS)]
    later = [*OTHERS[:1], *later, *OTHERS[1:]]
    settings = replace(made, seed=5, align=replace(made.align, replay=0.5, orthogonality="none"))
    starts = {"two": ("align", one), "three": ("align", tmp_path / "two"), "on": ("aggregate", one)}
    for name, (stage, start) in starts.items():
        more = {"replayed": later} if stage == "align" else {}
        stages.train(stage, settings, [*later, *TALKS], tmp_path / name, data_hash="x", start=start, **more)
        trained = {tuple(row.ids) for row in loops[-1].examples}
        assert not trained & apart
        assert len(trained) == 6 + len(OTHERS)
    assert "12 rows are left out, since validation has the same ones" in capsys.readouterr().err


def test_a_file_of_validation_rows_has_none_that_trains(tiny_base, tmp_path, monkeypatch):
    loops = []
    monkeypatch.setattr(Loop, "run", lambda self, name: loops.append(self) or {"steps": 1})
    made = config(tiny_base)
    measuring = replace(made.aggregate, validation=ValidationConfig(data="apart.jsonl"))
    given = replace(made, aggregate=measuring)
    stages.train("aggregate", given, TALKS, tmp_path / "one", data_hash="x", validation=TALKS[:3])
    assert {row.id for row in loops[0].examples} == {talk.id for talk in TALKS[3:]}
    with pytest.raises(DataError, match="No row is left"):
        stages.train("aggregate", given, TALKS, tmp_path / "two", data_hash="x", validation=TALKS)
