"""Reading letters and texts of options at a place in an answer. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from medcare.evaluation import exam_patterns as words
from medcare.evaluation.exam_patterns import LETTERS, is_han, letter_patterns, plain

MARKS = " .。,;:!?()[]}\"'”’」』】"
CLAUSE_ENDS = ".。,;:、!(\n"
# How far after a place is read: the longest text of an option, with room.
_REACH = 2_000

Letters = frozenset[str]

NO_LETTERS: Letters = frozenset()


class Question:
    """The options of a question, and how letters and texts of options are read at a place in an answer."""

    def __init__(self, options: Sequence[str]) -> None:
        texts = [plain(option).lower().strip(MARKS) for option in options]
        self.options = dict(zip(LETTERS, texts, strict=False))
        self.longest_first = sorted(self.options.items(), key=lambda pair: -len(pair[1]))
        self.patterns = letter_patterns(len(self.options))

    def letters_at(self, text: str, place: int, *, strict: bool = False) -> tuple[Letters, int]:
        """The letters at a place, and where they end.

        Args:
            text: the answer.
            place: where to read.
            strict: the letters must be followed by nothing that could be about one of them only.
        """
        found: list[str] = []
        end = place
        joint, texts = "", 0
        while item := self.patterns.run.match(text, place):
            if len(set(item[1])) < len(item[1]) or not self._ends(text, item.end(), item[1]):
                # "A, B is wrong" states A; "A and B are wrong" states nothing.
                if found and (strict or joint.strip(" ,;.")):
                    return NO_LETTERS, end
                break
            found += item[1]
            own = self._own_text(text, item.end(), item[1])
            texts += own is not None
            end = own or item.end()
            separator = words.SEPARATOR.match(text, end)
            # A space joins letters, but not letters with their texts: "A. Aspirin B. Ibuprofen" is the
            # question.
            if not separator or (own and separator[0] == " "):
                break
            joint, place = separator[0], separator.end()
        if not found:
            return self._small_at(text, place)
        if texts == len(self.options) > 1:
            return NO_LETTERS, end
        closed = text[end - 1] in ")]}" or text[end : end + 2].strip(" ")[:1] in CLAUSE_ENDS
        if words.LEFT_OPEN.match(text, end) or (strict and not closed):
            return NO_LETTERS, end
        return frozenset(found), end

    def texts_at(self, text: str, place: int) -> tuple[Letters, int]:
        """The options whose texts stand at a place, joined by commas or "and", and where they end."""
        low = text[place : place + _REACH].lower()
        found: set[str] = set()
        article = words.ARTICLE.match(low)
        end = start = article.end() if article else 0
        while start < len(low):
            letter = self._text_at(low, start)
            if not letter:
                break
            found.add(letter)
            end = start + len(self.options[letter])
            separator = words.SEPARATOR.match(low, end)
            if not separator:
                break
            start = separator.end()
        return (NO_LETTERS if words.LEFT_OPEN.match(low, end) else frozenset(found)), place + end

    def alone(self, text: str) -> Letters:
        """The answer, if the text is nothing else: letters, letters with their options' texts, or texts."""
        for read in (self.letters_at, self.texts_at):
            letters, end = read(text, 0)
            if letters and not text[end:].strip(MARKS):
                return letters
        return NO_LETTERS

    def listed_at(self, text: str, place: int) -> bool:
        """Whether all options stand at a place, each with its letter and text: the question again."""
        for letter in self.options:
            gap = words.LIST_GAP.match(text, place)
            item = self.patterns.run.match(text, gap.end() if gap else place)
            end = self._own_text(text, item.end(), letter) if item and item[1] == letter else None
            if end is None:
                return False
            place = end
        return True

    def without_texts(self, text: str) -> str:
        """The text with "B" for "B. Ibuprofen": what is said of an option stands next to its letter."""
        parts = []
        start = 0
        for mark in self.patterns.marked.finditer(text):
            end = self._own_text(text, mark.end(1), mark[1])
            if mark.start() >= start and end is not None:
                parts.append(text[start : mark.end(1)])
                start = end
        return "".join((*parts, text[start:]))

    def _text_at(self, low: str, start: int) -> str | None:
        for letter, option in self.longest_first:
            if option and low.startswith(option, start) and ends_apart(low, start + len(option)):
                return letter
        return None

    def _own_text(self, text: str, end: int, letters: str) -> int | None:
        """Where the text of a letter's option ends, if it stands after the letter: "B. Ibuprofen"."""
        own = self.options[letters] if len(letters) == 1 else ""
        low = text[end : end + _REACH].lower()
        start = len(low) - len(low.lstrip(" .:、,)-"))
        if (
            not own
            or low[:1] in "'’"
            or not low.startswith(own, start)
            or not ends_apart(low, start + len(own))
        ):
            return None
        return end + start + len(own)

    def _small_at(self, text: str, place: int) -> tuple[Letters, int]:
        """A letter in lower case, with nothing after it: "a" is a word too."""
        item = self.patterns.small.match(text, place)
        if item and (
            text[item.end() - 1] in ")]}" or not text[item.end() : item.end() + 2].strip(MARKS + "\n")
        ):
            return frozenset(item[1].upper()), item.end()
        return NO_LETTERS, place

    def _ends(self, text: str, end: int, letters: str) -> bool:
        """Whether letters that end here are letters of options, and not a part of something longer."""
        rest = text[end : end + _REACH]
        if not rest or text[end - 1] in ")]}" or self._own_text(text, end, letters):
            return True
        char, rest = rest[0], rest[1:]
        if char == ".":  # "E. coli", "B.1.1.7"
            word = rest.lstrip(" ")
            return not (rest[:1].isdigit() or word[:1].islower()) or bool(words.AFTER_POINT.match(word))
        if char in "-–'’":  # "C-reactive protein", "B's"
            return not rest[:1].isalnum()
        if char == " ":
            return self._goes_on(rest.lstrip(" "))
        if is_han(char):
            return bool(words.AFTER_HAN.match(char + rest))
        return not (char.isalnum() or char == "_")

    def _goes_on(self, after: str) -> bool:
        """Whether a text after a letter and a space goes on with the sentence, or with the next letter."""
        if not after[:1].isalnum():
            return True
        if is_han(after[0]):
            return bool(words.AFTER_HAN.match(after))
        item = self.patterns.run.match(after)
        following = item is not None and not after[item.end() : item.end() + 1].isalnum()
        return following or bool(words.AFTER_WORD.match(after))


def ends_apart(low: str, end: int) -> bool:
    """Whether a text that ends here is not the beginning of a longer word or number."""
    last, char, after = low[end - 1], low[end : end + 1], low[end + 1 : end + 2]
    if is_han(last):
        return not is_han(char) or bool(words.AFTER_TEXT.match(low, end))
    if not last.isalnum():
        return True
    if char == "-" or (char == "." and last.isdigit()):
        return not after.isalnum()
    return not (char == "%" or char.isalnum()) or (is_han(char) and not last.isdigit())


def begins_apart(low: str, start: int) -> bool:
    """Whether a text that starts here is not the end of a longer word or number."""
    before = low[start - 1 : start] if start else ""
    return is_han(low[start]) or not before.isalnum() or is_han(before)
