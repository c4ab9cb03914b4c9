"""The catalogue names formats and sources that the readers know."""

from __future__ import annotations

from medcare.data.catalogue import KNOWN_SETS, UNKNOWN
from medcare.data.readers import FORMATS
from medcare.data.readers.hub import HubData


def test_every_set_is_complete_and_readable() -> None:
    assert len({known.name for known in KNOWN_SETS}) == len(KNOWN_SETS)
    for known in KNOWN_SETS:
        assert known.format in {*FORMATS, UNKNOWN}
        assert all(value for name, value in vars(known).items() if name not in ("files", "commit"))
        if known.source.startswith("hf:"):
            assert HubData.parse(known.source).name.repository == known.repository
        else:
            assert known.source.startswith("https://")


def test_every_published_exam_format_is_in_a_known_set() -> None:
    other_files_of_known_sets = {"medmcqa_original", "frenchmedmcqa", "pubmedqa_hf", "arc"}
    exams = {name for name, form in FORMATS.items() if form.tests and not form.general and name != "items"}
    assert exams - other_files_of_known_sets <= {known.format for known in KNOWN_SETS}
