"""The options of an exam question: their letters and texts, as an answer names them. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from medcare.evaluation.multiple_choice.question import LETTERS

MARKS = " .。,;:!?()[]{}|/\"'“”‘’「」『』【】<>\n-–—"
CLAUSE_ENDS = ".。,;:、!?(|\n"

Letters = frozenset[str]
NO_LETTERS: Letters = frozenset()

# How far after a place is read: the longest text of an option, with room.
_REACH = 2_000

# What may join two letters of one answer.
_SEPARATOR = re.compile(
    r" ?(?:, ?(?:and |& |以及|和)?|\.(?=[A-Z]\b)|[、;&/+|]|and\b|as well as\b|plus\b|和|与|及|以及|还有) ?| "
)
_LEFT_OPEN = re.compile(r" ?(?:,? ?or\b|或)", re.IGNORECASE)
_CALLED_AGAIN = re.compile(r"(?:(?:both|options?|choices?)\b|选项) ?", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:an? |the |both )?", re.IGNORECASE)
_LIST_GAP = re.compile(r"[\s,;、|.-]*+")

# What may follow a letter: a word that goes on with the sentence rather than with a name.
_AFTER_WORD = re.compile(
    r"(?:because|since|as|for|due|and|or|but|which|while|with|in|so|therefore|instead|rather|not|based|given|here"
    r"|though|although|according|from|only|alone|where|when|that|it|we|if|by|on|among|per|unless)\b(?!-)",
    re.IGNORECASE,
)
_AFTER_POINT = re.compile(
    rf"{_AFTER_WORD.pattern}|(?:the|this|it|these|they|there|all|an?|correct|explanation|option)\b",
    re.IGNORECASE,
)
_AFTER_HAN = re.compile(
    r"(?:选项|项)(?! ?(?:的?(?:说法|描述))?[是为]?[错不])|因为|由于|理由|原因|解析|说明|[和与及或而]|以及"
    r"|[都均](?![不错])|[两三四五]|这|正确|符合|最|[吧啦哦了]"
)
# What may follow the text of an option in Chinese.
_AFTER_TEXT = re.compile(rf"{_AFTER_HAN.pattern}|[的是为因所也则故可但等]")
# Before a letter: it is called one.
_CALLED = re.compile(r"(?:\b(?:option|choice|answer|letter)s?|选项|答案) ?[(\[\"“'‘]?\Z", re.IGNORECASE)

# What may stand right before a letter that is one.
_BEFORE_HAN = frozenset("项此上以故则即和与及案是为选而但且对错误确只有中综")
_BEFORE_WORD = re.compile(
    r"(?:options?|choices?|answers?|statements?|letter|and|but|so|thus|therefore|hence|that|because|since|while|only"
    r"|both|though|although|whereas|however|conclusion|above)\Z",
    re.IGNORECASE,
)

# Words are compared by their beginnings; most of an option's own words name it.
_WORD = re.compile(r"[^\W\d_\u4e00-\u9fff]{3,}")
_STEM, _MOST = 6, 0.7
_ACRONYM = re.compile(r"[A-Z][A-Z0-9]+|\d[\d.,]* ?(?:[A-Za-zµ]+|%)")
_WORDS = frozenset(
    (
        "yes",
        "no",
        "maybe",
        "true",
        "false",
        "both",
        "all",
        "none",
        "other",
        "是",
        "否",
        "对",
        "错",
        "正确",
        "错误",
    )
)

# An option that stands for others, for all or for none.
_ALL = re.compile(
    r"""
    (?: (?:all|both|each)(?:\ of)?(?:\ (?:the|these))?(?:\ \w+)?
        (?:\ (?:above|options|choices|statements|mentioned|listed))?(?:\ (?:are|is)\ (?:correct|true|right))?
      | (?:以上|上述|上面)(?:选项|各项|说法|答案)?[全都均皆]?部?(?:是|对|正确|可以?|符合|属于|有|包括)?的?
      | (?:全|都|均|皆)(?:部|都)?(?:是|对|正确)
    )(?=[.。,;:!()\n|]|\Z)
    """,
    re.VERBOSE,
)
_NONE = re.compile(
    r"(?:none|neither|no)\b.{0,40}|无|以上[无非].{0,6}"
    r"|(?:以上|上述)?(?:选项|各项)?[全都均皆][不非错无没].{0,8}"
)
_NAMES = r"""
    (?:(?:both|only|options?|choices?)\ )?
    (?P<names>(?-i:RUN)(?:\ ?(?:,?\ ?and|[,&/+、]|和|与|及|以及)\ ?(?:option\ )?(?-i:RUN))*)
    (?:\ ?(?:only|both|alone|are\ (?:correct|true|right)|均?都?(?:是|对|正确|可以?)|两?项|选项|同时))*
"""


@dataclass(frozen=True)
class Mention:
    """A place where the text of an option stands.

    Attributes:
        letter: of the option.
        start: where the text begins.
        end: where it ends.
    """

    letter: str
    start: int
    end: int


class Options:
    """The options of one question.

    Args:
        texts: of the options, already `plain`.
        letters: of the options; None for A, B, C and so on.
    """

    def __init__(self, texts: Sequence[str], letters: Sequence[str] | None = None) -> None:
        bare = [text.strip(MARKS) or text.strip() for text in texts]
        folded = {text.lower() for text in bare}
        # Case counts where it alone tells two options apart.
        self.cased = len(folded) < len(set(bare))
        self.letters = tuple(letters or LETTERS)[: len(bare)]
        self.written = dict(zip(self.letters, bare, strict=False))
        self.texts = {letter: self.fold(text) for letter, text in self.written.items()}
        self.longest_first = sorted(self.texts.items(), key=lambda pair: -len(pair[1]))
        one = "[" + "".join(self.letters) + "]"
        self.run = rf"{one}{{1,{len(self.letters)}}}"
        self._run = re.compile(rf"""[(\[{{<"“'‘]{{0,2}}({self.run})[)\]}}>"”'’]{{0,2}}""")
        self._small = re.compile(rf"[(\[\"“]?({one.lower()})[)\]}}\"”]?")
        self.marked = re.compile(rf"(?<![A-Za-z0-9])({one})[.:、)]")

    def fold(self, text: str) -> str:
        """The text as it is compared with the options' texts; as long as it was."""
        return text if self.cased or len(text.lower()) != len(text) else text.lower()

    def __len__(self) -> int:
        return len(self.letters)

    # Letters and texts at a place.

    def letters_at(self, text: str, place: int, *, strict: bool = False) -> tuple[Letters | None, int]:
        """The letters at a place, and where they end; None where the choice is left open: "A or B".

        Args:
            text: the answer.
            place: where to read.
            strict: the letters must be followed by nothing that could be about one of them only.
        """
        called = _CALLED_AGAIN.match(text, place)
        place = called.end() if called else place
        named: list[str] = []
        end = first = place
        joint, texts = "", 0
        while match := self._run.match(text, place):
            if len(set(match[1])) < len(match[1]) or not self._ends(text, match.end(), match):
                # "A, B is wrong" states A; "A and B are wrong" states nothing.
                if named and (strict or joint.strip(" ,;.")):
                    return NO_LETTERS, end
                break
            named += match[1]
            if len(named) > 2 * len(self):  # no answer, and it might go on for long
                return NO_LETTERS, end
            own = self.own_text(text, match.end(), match[1])
            texts += own is not None
            end = own or match.end()
            separator = _SEPARATOR.match(text, end)
            # A space joins letters, but not letters with their texts: "A. Aspirin B. Ibuprofen" is the
            # question.
            if not separator or (own and separator[0] == " "):
                break
            joint, place = separator[0], separator.end()
            called = _CALLED_AGAIN.match(text, place)
            place = called.end() if called else place
        if not named:
            return self._small_at(text, place)
        if texts == len(self) > 1:
            return NO_LETTERS, end
        closed = text[end - 1] in ')]}"”' or text[end : end + 2].strip(" ")[:1] in CLAUSE_ENDS
        if len(named) > 1 and len(named) == end - first and text[end : end + 1] == "(":  # "AD(Alzheimer)"
            return NO_LETTERS, end
        if _LEFT_OPEN.match(text, end):
            return None, end
        return (NO_LETTERS if strict and not closed else frozenset(named)), end

    def texts_at(self, text: str, place: int) -> tuple[Letters, int]:
        """The options whose texts stand at a place, joined by commas or "and", and where they end."""
        folded = self.fold(text[place : place + _REACH])
        named: set[str] = set()
        article = _ARTICLE.match(folded)
        starts = (0, article.end()) if article and article.end() else (0,)
        end = 0
        for start in starts:
            while start < len(folded):
                letter = self._text_at(folded, start)
                if not letter:
                    break
                named.add(letter)
                end = start + len(self.texts[letter])
                separator = _SEPARATOR.match(folded, end)
                if not separator:
                    break
                start = separator.end()
            if named:
                break
        if not named and self.all_of_them and (whole := _ALL.match(folded)):
            return frozenset(self.all_of_them), place + whole.end()
        return (NO_LETTERS if _LEFT_OPEN.match(folded, end) else frozenset(named)), place + end

    def alone(self, text: str) -> Letters:
        """The answer, if the text is nothing else: letters, letters with their options' texts, or texts."""
        bare = self.fold(text.strip(MARKS))
        if len(bare) > 1 and bare in self.texts.values():
            return frozenset(next(letter for letter, own in self.texts.items() if own == bare))
        for read in (self.letters_at, self.texts_at):
            letters, end = read(text, 0)
            if letters and text[end:].strip(MARKS) in ("", "选项", "项"):
                return letters
        return NO_LETTERS

    def listed(self, text: str, place: int) -> tuple[list[str], int]:
        """The options that stand at a place, in order from the first, each with letter and text; the end.

        The text of the last one may be cut off where the answer ends; the end is then that of the answer.
        """
        named: list[str] = []
        for letter in self.letters:
            gap = _LIST_GAP.match(text, place)
            start = gap.end() if gap else place
            match = self._run.match(text, start)
            if match is None or match[1] != letter:
                break
            end = self.own_text(text, match.end(), letter)
            if end is None:
                rest = (
                    self.fold(text[match.end() :].strip(MARKS)) if len(text) - match.end() < _REACH else "?"
                )
                if named and self.texts[letter].startswith(rest):
                    return [*named, letter], len(text)
                break
            named.append(letter)
            place = end
        return named, place

    def own_text(self, text: str, end: int, letter: str) -> int | None:
        """Where the text of a letter's option ends, if it stands after the letter: "B. Ibuprofen"."""
        own = self.texts[letter] if len(letter) == 1 else ""
        folded = self.fold(text[end : end + _REACH])
        start = len(folded) - len(folded.lstrip(" .:、,)-–—(\"“'‘|"))
        if not own or folded[:1] in ("'", "’") or not folded.startswith(own, start):
            return None
        return end + start + len(own) if _ends_apart(folded, start + len(own)) else None

    def letters_before(self, pattern: str, text: str) -> Iterator[tuple[Letters, re.Match[str]]]:
        """One or more letters right before what is said of them: "A and C are correct".

        Args:
            pattern: what is said, a verbose pattern.
            text: the answer.
        """
        joint = r"\ ?(?:,\ ?(?:and\ |和)?|[、&/|]|and\b|和|与|及)\ ?(?:选项|[Oo]ption\ )?"
        joined = rf"{self.run}(?:{joint}{self.run}){{0,{len(self)}}}"
        letters = rf"""(?<![A-Za-z0-9_.'’-])[(\["']?(?P<letters>{joined})[)\]"']?\ ?"""
        for match in re.finditer(letters + pattern, text, re.VERBOSE):
            if _stands_alone(text, match.start()):
                named = re.sub("[Oo]ption", "", match["letters"])
                yield frozenset(char for char in named if char in self.texts), match

    def without_texts(self, text: str) -> str:
        """The text with "B" for "B. Ibuprofen": what is said of an option stands next to its letter."""
        parts = []
        start = 0
        for mark in re.finditer(rf"(?<![A-Za-z0-9])([{''.join(self.letters)}])(?=[.:、)(\s-])", text):
            end = self.own_text(text, mark.end(1), mark[1])
            if mark.start() >= start and end is not None:
                parts.append(text[start : mark.end(1)])
                start = end
        return "".join((*parts, text[start:]))

    # Texts anywhere, and options that stand for others.

    def mentions(self, text: str) -> Iterator[Mention]:
        """The places where the text of an option stands, inside no longer one, in order."""
        pattern = self._mention
        for match in pattern.finditer(text) if pattern else ():
            if _begins_apart(text, match.start()) and _ends_apart(text, match.end()):
                yield Mention(str(match.lastgroup)[-1], match.start(), match.end())

    @cached_property
    def _mention(self) -> re.Pattern[str] | None:
        parts = []
        for letter, text in sorted(self.written.items(), key=lambda pair: -len(pair[1])):
            han = any(map(is_han, text))
            short = len(text) < (2 if han else 4)
            # Short texts, numbers and words like "yes" occur by chance; not so an acronym in capitals.
            if (short and not _ACRONYM.fullmatch(text)) or text.isdigit() or text.lower() in _WORDS:
                continue
            body = re.sub(r"(?:\\ |\\-|-)+", "[ -]+", re.escape(text))
            body += "(?:s|es)?" if text[-1:].isalpha() and not han else ""
            parts.append(f"(?P<o{letter}>{'(?-i:' + body + ')' if short and not self.cased else body})")
        return re.compile("|".join(parts), 0 if self.cased else re.IGNORECASE) if parts else None

    def named(self, text: str) -> Letters:
        """The options that a text names, by their texts or by most of the words that no other option has."""
        stems = {word[:_STEM] for word in _WORD.findall(text.lower())}
        alluded = {
            letter for letter, own in self._own_stems.items() if own and len(own & stems) >= _MOST * len(own)
        }
        return frozenset(alluded | {mention.letter for mention in self.mentions(text)})

    def alluded(self, letter: str, text: str) -> bool:
        """Whether a text has any word that this option has and no other."""
        return bool(
            self._own_stems.get(letter, set()) & {word[:_STEM] for word in _WORD.findall(text.lower())}
        )

    @cached_property
    def _own_stems(self) -> dict[str, set[str]]:
        stems = {
            letter: {word[:_STEM] for word in _WORD.findall(text.lower())} - _WORDS
            for letter, text in self.texts.items()
            if letter in self._of_their_own
        }
        return {
            letter: own - set().union(*(theirs for other, theirs in stems.items() if other != letter))
            for letter, own in stems.items()
        }

    def resolve(self, letters: Letters) -> Letters:
        """One option where it stands for the others that were named: "all of the above", "both A and B"."""
        for letter, named in self.compounds.items():
            if letters == named:
                return frozenset(letter)
        return letters

    @cached_property
    def compounds(self) -> dict[str, Letters]:
        """The options that stand for others, each with the letters of those."""
        found: dict[str, Letters] = {}
        names = re.compile(_NAMES.replace("RUN", self.run), re.VERBOSE | re.IGNORECASE)
        for letter, text in self.texts.items():
            if _ALL.fullmatch(text):
                found[letter] = frozenset(self._of_their_own)
            elif match := names.fullmatch(self.written[letter]):
                found[letter] = frozenset("".join(re.findall(self.run, match["names"]))) - {letter}
        return {letter: named for letter, named in found.items() if len(named) > 1}

    @cached_property
    def _of_their_own(self) -> list[str]:
        """The options that stand neither for all others nor for none of them."""
        return [
            letter
            for letter, text in self.texts.items()
            if not _ALL.fullmatch(text) and not _NONE.fullmatch(text)
        ]

    @cached_property
    def all_of_them(self) -> str | None:
        """The option that says that all others are right."""
        return next((letter for letter, text in self.texts.items() if _ALL.fullmatch(text)), None)

    # What ends a letter or a text.

    def _text_at(self, folded: str, start: int) -> str | None:
        for letter, option in self.longest_first:
            if option and folded.startswith(option, start) and _ends_apart(folded, start + len(option)):
                return letter
        return None

    def _small_at(self, text: str, place: int) -> tuple[Letters, int]:
        """A letter in lower case, with nothing after it: "a" is a word too."""
        match = self._small.match(text, place)
        if match and (
            text[match.end() - 1] in ')]}"”' or not text[match.end() : match.end() + 2].strip(MARKS + "\n")
        ):
            return frozenset(match[1].upper()), match.end()
        return NO_LETTERS, place

    def _ends(self, text: str, end: int, match: re.Match[str]) -> bool:
        """Whether letters that end here are letters of options, and not a part of something longer."""
        rest = text[end : end + _REACH]
        if not rest or text[end - 1] in ')]}"”' or self.own_text(text, end, match[1]):
            return True
        char, rest = rest[0], rest[1:]
        if char == ".":  # "E. coli", "B.1.1.7"
            word = rest.lstrip(" ")
            return not (rest[:1].isdigit() or word[:1].islower()) or bool(_AFTER_POINT.match(word))
        if char in "-–'’":  # "C-reactive protein", "B's"
            return not rest[:1].isalnum()
        if char == " ":
            called = _CALLED.search(text, max(0, match.start() - 12), match.start())
            return bool(called) or self._goes_on(rest.lstrip(" "))
        if is_han(char):
            return bool(_AFTER_HAN.match(char + rest))
        return not (char.isalnum() or char == "_")

    def _goes_on(self, after: str) -> bool:
        """Whether a text after a letter and a space goes on with the sentence, or with the next letter."""
        if not after[:1].isalnum():
            return True
        if is_han(after[0]):
            return bool(_AFTER_HAN.match(after))
        match = self._run.match(after)
        following = match is not None and not after[match.end() : match.end() + 1].isalnum()
        return following or bool(_AFTER_WORD.match(after))


def is_han(char: str) -> bool:
    """Whether a character is a common Chinese one."""
    return len(char) == 1 and "\u4e00" <= char <= "\u9fff"


def _ends_apart(folded: str, end: int) -> bool:
    """Whether a text that ends here is not the beginning of a longer word or number."""
    last, char, after = folded[end - 1], folded[end : end + 1], folded[end + 1 : end + 2]
    if is_han(last):
        return not is_han(char) or bool(_AFTER_TEXT.match(folded, end))
    if not last.isalnum():
        return True
    if char == "-" or (char == "." and last.isdigit()):
        return not after.isalnum()
    return not (char == "%" or char.isalnum()) or (is_han(char) and not last.isdigit())


def _begins_apart(folded: str, start: int) -> bool:
    """Whether a text that starts here is not the end of a longer word or number."""
    before = folded[start - 1 : start] if start else ""
    return is_han(folded[start]) or not before.isalnum() or is_han(before)


def _stands_alone(text: str, start: int) -> bool:
    """Whether letters that start here are not the end of a name ("vitamin B", "维生素B")."""
    before = text[max(0, start - 24) : start].rstrip(" ")
    if not before or text[start] in "([":
        return True
    if is_han(before[-1]):
        return before[-1] in _BEFORE_HAN
    word = re.search(r"[A-Za-z]+\Z", before)
    return not word or bool(_BEFORE_WORD.match(word[0]))
