"""Writes docs/settings.md out of the settings themselves; a test holds the page to it.

python docs/write_settings.py
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from medcare.settings.described import Setting, described, group_meaning
from medcare.settings.files import PRESETS

PAGE = Path(__file__).parent / "settings.md"
HEAD = """# Settings

Every setting, as `medcare config` prints them: `--set KEY=VALUE` on the command line, or in a YAML
file, where a dot opens a group. A preset's column says what it sets. `medcare config --preset demo
mine.yaml` shows what a file makes of it.

"""


def text() -> str:
    """The page as it should be now."""
    entries = described()
    said = {entry.key: entry for entry in entries}
    parts = [HEAD]
    for group, members in groupby(entries, key=lambda entry: entry.key.partition(".")[0]):
        rows = list(members)
        if group == rows[0].key:
            parts.append(_table(rows, rows[0].key == entries[0].key))
            continue
        title = f"\n## `{group}`\n\n{_sentence(group_meaning(group))}\n\n"
        if group == "align":
            # Stage 2 has the settings of stage 1; only what differs has to be read.
            rows = [row for row in rows if _differs(row, said[row.key.replace("align", "aggregate", 1)])]
            title += "As `aggregate`, but for these.\n\n"
        parts.append(title + _table(rows, head=True))
    return "".join(parts)


def _differs(one: Setting, other: Setting) -> bool:
    return (one.default, one.presets) != (other.default, other.presets)


def _table(rows: list[Setting], head: bool) -> str:
    columns = ("setting", "default", *PRESETS, "meaning")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"] if head else []
    for row in rows:
        presets = [_written(row.presets[name]) if name in row.presets else "" for name in PRESETS]
        meaning = row.meaning if row.kind in row.meaning else f"{row.meaning} *({row.kind})*"
        cells = (f"`{row.key}`", _written(row.default), *presets, meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _written(value: Any) -> str:
    return f"`{value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
