"""Names on a hub are held to a shape before anything is asked."""

from __future__ import annotations

import pytest

from medcare.foundation.hub import HubName


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None),
        ("o/n@main", "o/n", "main"),
        ("o/n@v1.0", "o/n", "v1.0"),
        ("o/n@refs/pr/3", "o/n", "refs/pr/3"),
        ("squad", "squad", None),
    ],
)
def test_a_name_is_read_as_it_is_written(text: str, repository: str, revision: str | None) -> None:
    name = HubName.parse(text)
    assert (name.repository, name.revision, str(name)) == (repository, revision, text)


def test_a_commit_alone_is_fixed() -> None:
    commit = "a" * 40
    assert HubName.parse(f"o/n@{commit}").is_fixed
    assert not HubName.parse("o/n@main").is_fixed
    assert HubName.parse("o/n@main").at(commit) == HubName("o/n", commit)
    assert HubName.parse("o/n@main").at(None) == HubName("o/n", "main")


@pytest.mark.parametrize(
    "text",
    [
        "", "@main", "o/n@", "o/n@ ", "o/n@a b", "o/n@../../x", "o/n@a//b", "o/n@/a", "o/n@a/", "o/n@a@b",
        "o/n@-x", "o/n@" + "a" * 200, "o/n@a?b", "o/n@a#b", "o/n@a%2fb", "o/n@\x00", "o/n@a\n", "o/../n",
        "../n", "a--b/c", "a/b/c", "o/n.git", "/etc/passwd", "o/é", "o/n@é", "x" * 100,
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    assert HubName.of(text) is None
    with pytest.raises(ValueError, match=r"on a hub|no revision"):
        HubName.parse(text)
