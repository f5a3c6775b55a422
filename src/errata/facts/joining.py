"""What stands between a prompt and its target: the one place that decides it, for every stage and every program.

What the file says is what is sent. White space at the end of a prompt is kept as written, and a fact can say what joins
(its field `join`). Where it says nothing, it is one space, or nothing where people write none: after white space, an
opening quote or bracket, or the tag of a chat template, and beside a script that has no spaces between words.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right

SPACE, NOTHING = " ", ""

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FFF),  # radicals of Han
    (0x3000, 0x312F),  # punctuation of Han and kana, Hiragana, Katakana, Bopomofo
    (0x3190, 0x9FFF),  # Kanbun ... Katakana's extensions, Han; Yi begins behind it
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),  # Myanmar Extended-B
    (0xAA60, 0xAADF),  # Myanmar Extended-A, Tai Viet
    (0xF900, 0xFAFF),  # Han, compatibility
    (0xFE30, 0xFE4F),  # vertical forms of punctuation
    (0xFF00, 0xFF9F),  # full-width forms, half-width Katakana
    (0x1AFF0, 0x1B16F),  # kana's supplements
    (0x20000, 0x3FFFF),  # Han, extensions
)
"""Blocks of Unicode whose scripts put no space between words, in order. Hangul is not among them: Korean has spaces."""
_STARTS = [start for start, _ in UNSPACED]

OPENING = frozenset("([{<\u00bf\u00a1\u201e\u201a@#/\\_")
"""Behind these a word follows at once; so it does behind whatever Unicode calls opening, and currency signs."""
QUOTES = frozenset("\"'`\u00ab\u2018\u201c")
"""They open only where nothing stands before them that they could close."""
BEFORE_A_QUOTE = frozenset("=:,\u2014-")
_TAG = re.compile(r"<[^<>\s]+>$")
"""The last token of a chat template, or of a markup: what follows is written at once."""


def join_of(prompt: str, target: str, join: str | None = None) -> str:
    """What stands between a prompt and its target: `join` where a fact has one, else "" or " "."""
    if join is not None:
        return join
    return NOTHING if _writes_no_space(prompt, target) else SPACE


def joined(prompt: str, target: str, join: str | None = None) -> str:
    """Prompt and target as one text, as it is sent to a model."""
    return prompt + join_of(prompt, target, join) + target


def _writes_no_space(prompt: str, target: str) -> bool:
    if not prompt or prompt[-1].isspace() or target[:1].isspace():
        return True
    return _opens(prompt) or _unspaced(prompt[-1]) or _unspaced(target[:1])


def _opens(prompt: str) -> bool:
    """Whether the prompt's last character opens what the target continues."""
    last = prompt[-1]
    if last in QUOTES:
        before = prompt[-2:-1]
        return not before or before.isspace() or before in BEFORE_A_QUOTE or _opens(prompt[:-1])
    if last in OPENING or unicodedata.category(last) in ("Ps", "Sc"):
        return True
    return last == ">" and _TAG.search(prompt) is not None


def _unspaced(letter: str) -> bool:
    """Whether the letter is of a script without spaces between words."""
    place = bisect_right(_STARTS, ord(letter)) - 1 if letter else -1
    return place >= 0 and ord(letter) <= UNSPACED[place][1]
