"""What is told elsewhere of paths on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcare.page.paths import last_part, without_paths

ROOT = Path("/home/me/runs")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/runs/demo:align answered 12", "demo:align answered 12"),
        ("/home/me/runs:base is the folder itself", "runs:base is the folder itself"),
        ("/home/me/runs2/demo is another", "demo is another"),
        ("'/data/exams/a.jsonl' differs", "'a.jsonl' differs"),
        ("~/models/qwen, and ./here", "qwen, and ./here"),
        ("1/2 of http://host:80/v1#m and Qwen/Qwen3", "1/2 of http://host:80/v1#m and Qwen/Qwen3"),
        ("It lies in /srv/x/y. Look there.", "It lies in y. Look there."),
        ('["/a/b", "/c/d"]', '["b", "d"]'),
    ],
)
def test_of_a_path_the_last_part_is_told(text: str, told: str) -> None:
    assert without_paths(text, ROOT) == told
    assert without_paths({"x": [text, 1, None]}, ROOT) == {"x": [told, 1, None]}


def test_a_path_with_spaces_at_the_end_of_a_text() -> None:
    assert last_part("align of /home/my models/a base") == "align of a base"
    assert last_part("float32") == "float32"
