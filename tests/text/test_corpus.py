from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcare.text.batches import IGNORED, collate
from medcare.text.chat_template import Rendered
from medcare.text.corpus import Corpus, to_arrow

ROWS = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1), st.booleans()),
    min_size=1,
    max_size=20,
)


def rendered(rows) -> list[Rendered]:
    return [
        Rendered([token for token, _ in row], [kept or document for _, kept in row], document)
        for row, document in rows
    ]


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_a_corpus_gives_the_rows_that_it_was_made_of(tmp_path_factory, rows):
    rows = rendered(rows)
    path = tmp_path_factory.mktemp("corpus") / "rows.arrow"
    Corpus.write(path, [to_arrow(rows[:3]), to_arrow(rows[3:])])
    for corpus in (Corpus.of(rows), Corpus.open(path)):
        assert list(corpus) == rows
        assert corpus.digest == Corpus.of(rows).digest
        assert corpus.lengths.tolist() == [len(row.ids) for row in rows]
        assert corpus.supervised.tolist() == [sum(row.mask[1:]) for row in rows]
    assert list(Corpus.of(rows) + Corpus.open(path)) == rows * 2


@settings(deadline=None, max_examples=50)
@given(ROWS, st.integers(2, 40))
def test_long_conversations_are_left_out_and_long_documents_cut(rows, length):
    rows = rendered(rows)
    seen = Corpus.of(rows).within(length)
    assert max(seen.lengths, default=0) <= length
    expected: list[Rendered] = []
    for row in rows:
        if row.document and len(row.ids) > length:
            starts = range(0, len(row.ids) - 1, length - 1)
            pieces = [slice(start, start + length) for start in starts]
            expected += [Rendered(row.ids[piece], row.mask[piece], document=True) for piece in pieces]
        elif len(row.ids) <= length:
            expected.append(row)
    assert list(seen) == expected
    assert list(seen.within(length) + seen) == expected * 2
    assert seen.supervised.tolist() == [sum(row.mask[1:]) for row in expected]


@pytest.mark.parametrize("length", [2, 3, 7, 100])
def test_every_token_of_a_document_but_its_first_is_predicted_once(length):
    document = Rendered(list(range(10, 60)), [True] * 50, document=True)
    seen = Corpus.of([document]).within(length)
    batch = collate(list(seen), pad_id=0, layout="packed")
    labels = batch.labels[0].numpy()
    assert np.array_equal(labels[labels != IGNORED], np.arange(11, 60))
    assert batch.supervised == seen.supervised.sum() == 49


def test_other_tokens_masks_or_borders_are_another_corpus():
    rows = [Rendered([1, 2, 3], [False, True, True]), Rendered([4], [False])]
    others = [
        [Rendered([1, 2, 4], [False, True, True]), Rendered([4], [False])],
        [Rendered([1, 2, 3], [False, True, False]), Rendered([4], [False])],
        [Rendered([1, 2], [False, True]), Rendered([3, 4], [True, False])],
        [Rendered([1, 2, 3], [False, True, True], document=True), Rendered([4], [False])],
        rows[::-1],
    ]
    assert len({Corpus.of(each).digest for each in [rows, *others]}) == 6


def test_ids_and_sources_are_numbers_a_row_whatever_files_they_stand_in(tmp_path):
    rows = [Rendered([1, 2], [False, True], id=f"talk-{n // 2}", source="abc"[n % 3]) for n in range(12)]
    Corpus.write(tmp_path / "rows.arrow", [to_arrow(rows[1:3]), to_arrow([]), to_arrow(rows[3:])])
    corpus = (Corpus.of(rows[:1]) + Corpus.open(tmp_path / "rows.arrow")).take(
        np.array([11, 4, 5, 0, 1, 2, 8])
    )
    numbers, names = corpus.sources()
    assert [names[number] for number in numbers] == [row.source for row in corpus]
    ids = corpus.ids()
    assert (numbers.dtype, ids.dtype) == (np.int32, np.uint64)
    told = [row.id for row in corpus]
    assert [[one == other for other in ids] for one in ids] == [
        [one == other for other in told] for one in told
    ]
