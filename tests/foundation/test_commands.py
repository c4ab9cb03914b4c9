"""What messages tell someone to type works when it is typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import medcare
from medcare.cli import app
from medcare.foundation.commands import argument, as_keywords, command, in_python
from medcare.foundation.errors import DataError

SOURCE = Path(str(medcare.__file__)).parent
PUT_IN = "\ufffd"
NASTY = [
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "$HOME",
    "-x.jsonl",
    "--out",
    "a;b",
    "中文",
    "new\nline",
    "*",
]


def literals() -> Iterator[tuple[str, str]]:
    """Every text in the code but docstrings, with a mark for what is put into it."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        seen = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                seen.update(ast.walk(node))
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else PUT_IN for part in node.values
                )
                yield str(path), "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in seen:
                yield str(path), node.value


TEXTS = sorted(set(literals()))


@pytest.mark.parametrize("path", NASTY)
def test_the_shell_hands_a_path_on_as_it_is(path):
    program, first, *rest = shlex.split(command("chat", Path(path), "--base", path))
    assert (program, first) == ("medcare", "chat")
    assert Path(rest[0]) == Path(path)
    assert not rest[0].startswith("-")
    assert rest[1:] == ["--base", path]
    assert argument(path).endswith(path)


def test_no_message_writes_a_path_into_a_command_by_itself():
    by_hand = re.compile(rf"(?<![\w-])medcare [a-z]+\b[^.;:)'`\n]*{PUT_IN}")
    bad = [(path, text) for path, text in TEXTS if by_hand.search(text)]
    assert not bad, "use medcare.foundation.commands.command"


def test_every_command_in_a_message_is_one():
    group = get_command(app)
    names = {name: set(getattr(entry, "commands", ())) for name, entry in group.commands.items()}
    for path, text in TEXTS:
        for first, second in re.findall(r"(?:'|`|: |with |run |see )medcare ([a-z]+)(?: ([a-z]+))?", text):
            assert first in names, (path, text)
            assert not names[first] or second in names[first], (path, text)


def test_python_is_told_keywords_where_the_command_line_has_options():
    for path, text in TEXTS:
        if "/cli/" in path or not re.search(r"[a-z] --[a-z]", text):
            continue
        without_commands = re.sub(r"medcare [a-z][^\n;]*", "", as_keywords(text))
        assert not re.search(r" --[a-z]", without_commands), (path, text)
    assert as_keywords("Choose another --out.") == "Choose another out=."
    assert as_keywords("give it with --from DIR.") == "give it with start=DIR."
    assert as_keywords("Try --set evaluation.exams=generation.") == (
        'Try settings=["evaluation.exams=generation"].'
    )
    assert as_keywords("name it: --chat-template FILE") == "name it: chat_template=FILE"
    assert as_keywords("See medcare data check --map A=B") == "See medcare data check --map A=B"


def test_an_error_keeps_its_class_and_says_keywords():
    @in_python
    def fail() -> None:
        """Doc."""
        raise DataError("Choose another --out.")

    assert fail.__doc__ == "Doc."
    with pytest.raises(DataError, match="another out="):
        fail()
