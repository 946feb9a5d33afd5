"""Reads a regular expression in the syntax of Oniguruma, which the tokenizers library uses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graftkit.interfaces.character_sets import ANY, Characters, characters, property_of, space

__all__ = ["Alternatives", "Characters", "Condition", "Node", "Repeat", "Series", "parse_pattern"]

_MOST_LEVELS = 100
_MOST_CHOICES = 100
_GROUP = re.compile(r"\?(?:#|:|=|!|>|<=|<!|<[^\W\d]\w*>|P<[^\W\d]\w*>|([imsxWDSPauL]*)(?:-([imsx]*))?([:)]))")
_COUNT = re.compile(r"\{(?:(\d+)(,)?(\d+)?|,(\d+))\}")
_CODE = re.compile(r"x\{([0-9A-Fa-f]{1,8})\}|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|0([0-7]{0,2})")
_PROPERTY = re.compile(r"[pP]\{(\^?)([^{}]*)\}")
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_SIGNS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7, "e": 27}
_HEX = characters((48, 57), (65, 70), (97, 102))
_DIGITS = Characters("categories", categories=frozenset({"Nd"}))
_LETTERS = Characters("categories", categories=frozenset({"Lu", "Ll", "Lt", "Lm", "Lo"}))
_WORD_OR_NOT = Characters(
    "categories", categories=frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc", "No", "So"})
)
_UNKNOWN = Characters("unknown")
_WORD = Characters("or", parts=(_LETTERS, _DIGITS, Characters("and", parts=(_WORD_OR_NOT, _UNKNOWN))))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": space(), "h": _HEX}
_NEWLINE = characters((10, 10))
_OF_PYTHON = str.maketrans({"m": None, "s": "m", "a": None, "u": None, "L": None})
"""Options of Python's `re` as those of Oniguruma, as far as they say what is read."""
_CONDITIONS = frozenset("AzZbBGK")


@dataclass(frozen=True, slots=True)
class Series:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of several parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part several times; without an upper bound where `most` is None."""

    part: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold at a place and takes no character; `ahead` is what is looked for in the text that follows."""

    ahead: Node | None = None


Node = Characters | Series | Alternatives | Repeat | Condition


def parse_pattern(pattern: str, *, python: bool = False, ignore_case: bool = False) -> Node:
    """Returns the parts of a regular expression. Atomic groups count as groups, possessive repeats as repeats.

    Args:
        pattern: The expression.
        python: Whether it is one of Python's `re`, which has compiled it: there `(?s)` means what `(?m)` does
            here, and classes have no classes in them.
        ignore_case: Whether letters are the same in upper and lower case.

    Raises:
        ValueError: It is malformed, or has something whose time can't be told, such as a reference to a group.
    """
    parser = _Parser(pattern, python)
    parser.flags = _Flags(case=not ignore_case)
    found = parser.alternatives()
    if parser.at < len(pattern):
        raise ValueError("a ')' without '('")
    return found


@dataclass(frozen=True, slots=True)
class _Flags:
    case: bool = True
    dot_all: bool = False
    extended: bool = False

    def changed(self, on: str, off: str) -> _Flags:
        if set(on) - set("imx") or set(off) - set("imx"):
            raise ValueError(f"the option (?{on}{'-' if off else ''}{off})")
        case = False if "i" in on else True if "i" in off else self.case
        return _Flags(case, (self.dot_all or "m" in on) and "m" not in off,
                      (self.extended or "x" in on) and "x" not in off)  # fmt: skip


class _Parser:
    def __init__(self, pattern: str, python: bool) -> None:
        self.text = pattern
        self.at = 0
        self._levels = 0
        self._python = python
        self.flags = _Flags()

    def alternatives(self) -> Node:
        """Reads up to the end, or to the parenthesis that closes the group."""
        if self._levels > _MOST_LEVELS:
            raise ValueError(f"over {_MOST_LEVELS} groups in one another")
        found, flags = [self._series()], self.flags
        while self._next() == "|":
            self.at += 1
            found.append(self._series())
        self.flags = flags
        return found[0] if len(found) == 1 else Alternatives(tuple(found))

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _series(self) -> Node:
        parts: list[Node] = []
        while (sign := self._next()) and sign not in "|)":
            if self.flags.extended and (sign.isspace() or sign == "#"):
                end = self.text.find("\n", self.at) if sign == "#" else self.at
                self.at = len(self.text) if end < 0 else end + 1
                continue
            atom = self._atom()
            if atom is not None:
                parts.append(self._repeated(atom))
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _repeated(self, atom: Node) -> Node:
        levels = 0
        while True:
            least: int
            most: int | None
            sign = self._next()
            count = _COUNT.match(self.text, self.at)
            if sign and sign in "*+?":
                self.at += 1
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
                if self._next() and self._next() in "?+":  # lazy or possessive
                    self.at += 1
            elif count is not None:
                self.at = count.end()
                least = int(count[1] or 0)
                most = int(count[4] or count[3]) if count[4] or count[3] else None if count[2] else least
                if most is not None and most < least:
                    least, most = most, least
                if self._next() == "?":
                    self.at += 1
                    if most == least:  # of a fixed count it makes an optional one
                        atom = Series((Repeat(atom, 0, most), Condition()))
                        continue
            else:
                return atom
            levels += 1
            if levels > _MOST_LEVELS:
                raise ValueError(f"over {_MOST_LEVELS} repeats of one another")
            atom = Repeat(atom, least, most)

    def _atom(self) -> Node | None:
        sign = self._next()
        self.at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == "\\":
            return self._escape()
        if sign == ".":
            return ANY if self.flags.dot_all else _NEWLINE.negated()
        if sign in "^$":
            return Condition()
        if sign in "*+?":
            raise ValueError(f"a {sign!r} with nothing before it")
        return self._cased(characters((ord(sign), ord(sign))))

    def _cased(self, found: Characters) -> Characters:
        return found if self.flags.case else found.without_case()

    def _group(self) -> Node | None:
        flags = self.flags
        kind = _GROUP.match(self.text, self.at)
        if kind is None and self._next() in ("?", "*"):
            raise ValueError(f"the group {self.text[self.at - 1 : self.at + 4]!r}")
        self.at = kind.end() if kind else self.at
        name = kind[0] if kind else ""
        if name == "?#":
            self._skip_comment()
            return None
        if kind is not None and kind[3]:
            on, off = (text.translate(_OF_PYTHON if self._python else {}) for text in (kind[1], kind[2] or ""))
            self.flags = flags.changed(on, off)
            if kind[3] == ")":  # for the rest of the group, alternatives included
                return self.alternatives()
        self._levels += 1
        found = self.alternatives()
        self._levels -= 1
        self.flags = flags
        if self._next() != ")":
            raise ValueError("a '(' without ')'")
        self.at += 1
        if name in ("?<=", "?<!"):
            if _choices(found) > _MOST_CHOICES:
                raise ValueError("text before a place that can be matched in many ways")
            return Condition()
        return Condition(found) if name in ("?=", "?!") else found

    def _skip_comment(self) -> None:
        end = self.text.find(")", self.at)
        if end < 0:
            raise ValueError("a '(' without ')'")
        self.at = end + 1

    def _escape(self) -> Node:
        found = self._escaped_set()
        if found is not None:
            return found
        sign = self._next()
        if sign in _CONDITIONS and sign:
            self.at += 1
            return Condition()
        if not sign or (sign.isascii() and sign.isalnum()):
            raise ValueError(f"a '\\{sign}'")
        self.at += 1
        return self._cased(characters((ord(sign), ord(sign))))

    def _escaped_set(self) -> Characters | None:
        """Reads what has the same meaning in a class and outside; None where it is something else."""
        sign = self._next()
        named = _PROPERTY.match(self.text, self.at)
        if named is not None:
            self.at = named.end()
            found = self._cased(property_of(named[2]))
            return found.negated() if (named[1] == "^") != (sign == "P") else found
        if sign and sign.lower() in _CLASSES:
            self.at += 1
            found = _CLASSES[sign.lower()]
            return found.negated() if sign.isupper() else found
        code = self._escaped_code()
        return None if code is None else self._cased(characters((code, code)))

    def _escaped_code(self) -> int | None:
        code = _CODE.match(self.text, self.at)
        if code is not None:
            self.at = code.end()
            value = int(code[4] or "0", 8) if code[4] is not None else int(code[1] or code[2] or code[3], 16)
            if value > 0x10FFFF:
                raise ValueError(f"the code {value:#x}")
            return value
        if self._next() and self._next() in _SIGNS:
            self.at += 1
            return _SIGNS[self.text[self.at - 1]]
        return None

    def _class(self) -> Characters:
        self._levels += 1
        if self._levels > _MOST_LEVELS:
            raise ValueError(f"over {_MOST_LEVELS} classes in one another")
        negated = self._next() == "^"
        self.at += negated
        intersected: list[Characters] = []
        parts: list[Characters] = []
        ranges: list[tuple[int, int]] = []
        begun = self.at
        while self._next() != "]" or self.at == begun:
            if not self._next():
                raise ValueError("a '[' without ']'")
            if self.text.startswith("&&", self.at) and not self._python:
                self.at += 2
                intersected.append(self._union(parts, ranges))
                parts, ranges = [], []
                continue
            self._class_member(parts, ranges)
        self.at += 1
        self._levels -= 1
        found = self._union(parts, ranges)
        if intersected:
            found = Characters("and", parts=(*intersected, found))
        return found.negated() if negated else found

    def _union(self, parts: list[Characters], ranges: list[tuple[int, int]]) -> Characters:
        alone = self._cased(characters(*ranges))
        return Characters("or", parts=(alone, *parts)) if parts else alone

    def _class_member(self, parts: list[Characters], ranges: list[tuple[int, int]]) -> None:
        posix = None if self._python else _POSIX.match(self.text, self.at)
        if posix is not None:
            self.at = posix.end()
            parts.append(_UNKNOWN)
            return
        if self._next() == "[" and not self._python:
            self.at += 1
            parts.append(self._class())
            return
        first = self._class_code(parts)
        if first is None:
            return
        last = first
        if self._next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "", "["):
            self.at += 1
            end = self._class_code(parts)
            if end is None:
                ranges.append((45, 45))
            else:
                last = end
        if last < first:
            raise ValueError("a range of characters that ends before it begins")
        ranges.append((first, last))

    def _class_code(self, parts: list[Characters]) -> int | None:
        """Reads a member of a class: returns its code, or adds a set to the parts and returns None."""
        sign = self._next()
        self.at += 1
        if sign != "\\":
            return ord(sign)
        code = self._escaped_code()
        if code is not None:
            return code
        found = self._escaped_set()
        if found is not None:
            parts.append(found)
            return None
        sign = self._next()
        self.at += 1
        if sign == "b":
            return 8
        if not sign or (sign.isascii() and sign.isalnum()):
            raise ValueError(f"a '\\{sign}' in a class")
        return ord(sign)


def _choices(node: Node) -> float:
    """Returns in how many ways a part can be tried; infinitely many where it has no upper bound."""
    match node:
        case Series(parts):
            product = 1.0
            for part in parts:
                product *= _choices(part)
            return product
        case Alternatives(parts):
            return sum(map(_choices, parts))
        case Repeat(part, least, most):
            if most is None or most > _MOST_CHOICES:
                return float("inf")
            once = min(_choices(part), 2.0 * _MOST_CHOICES)
            return float(sum(once**times for times in range(least, most + 1)))
        case Condition(ahead) if ahead is not None:
            return 1 + _choices(ahead)
        case _:
            return 1.0
