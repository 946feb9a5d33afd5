"""How long a backtracking matcher may take for a regular expression, judged from the expression alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from graftkit.interfaces.character_sets import Alphabet, Characters
from graftkit.interfaces.pattern_syntax import Alternatives, Condition, Node, Repeat, Series, parse_pattern

__all__ = ["PatternError", "python_steps_at_most", "steps_at_most"]

_MOST_CHARACTERS = 500_000
_MOST_COPIES = 16
_MOST_STATES = 20_000
_MOST_WORK = 500_000
_END, _DEAD = 0, 1


class PatternError(ValueError):
    """A regular expression that is malformed, or whose time can't be told."""


@dataclass(slots=True)
class _State:
    """A state of the automaton of a pattern.

    Attributes:
        characters: What is read; None where nothing is.
        following: The states after it, in any order.
        may_fail: Whether a condition stands here.
        repeats: Where a part that may be empty has ended: the state where it begins. It is not repeated if it took no
            character.
    """

    characters: Characters | None = None
    following: list[int] = field(default_factory=list)
    may_fail: bool = False
    repeats: int | None = None


def steps_at_most(pattern: str, length: int) -> float:
    r"""Returns how many steps a search for all matches in a text takes at most, up to a constant factor.

    The pattern is read as an automaton; what counts is in how many ways it may read one text before it fails there
    (the degree of its ambiguity, after Weber and Seidl, "On the degree of ambiguity of finite automata", 1991). Parts
    that follow no condition and end the match are not tried a second time, so that `\p{L}+` is linear where `\s+$` is
    quadratic.

    Args:
        pattern: A regular expression as Oniguruma reads it.
        length: Characters of the text.

    Returns:
        Steps; infinity where they grow exponentially.

    Raises:
        PatternError: It is malformed, too large, or has something whose time can't be told.

    Example:
        >>> steps_at_most(r" ?\p{L}+", 1000), steps_at_most(r"\s+$", 1000), steps_at_most(r"(a+)+$", 1000)
        (2000.0, 1000000.0, inf)
    """
    return _steps(_growth_of(pattern), length)


def python_steps_at_most(pattern: str, length: int, *, ignore_case: bool = False, whole: bool = False) -> float:
    """Returns how many steps Python's `re` takes at most, as `steps_at_most` does.

    Args:
        pattern: A regular expression that `re.compile` takes.
        length: Characters of the text.
        ignore_case: Whether it is compiled with `re.IGNORECASE`.
        whole: Whether all of the text must match.

    Raises:
        PatternError: It is too large, or has something whose time can't be told.
    """
    return _steps(_growth_of(pattern, python=True, ignore_case=ignore_case, whole=whole), length)


def _steps(growth: tuple[int, int], length: int) -> float:
    degree, ways = growth
    return float(min(ways, 10**9)) * float(length) ** (degree + 1) if degree >= 0 else float("inf")


@lru_cache(maxsize=64)
def _growth_of(
    pattern: str, *, python: bool = False, ignore_case: bool = False, whole: bool = False
) -> tuple[int, int]:
    """Returns the degree by which ways grow with the text, -1 for exponentially, and the factor before it."""
    try:
        if len(pattern) > _MOST_CHARACTERS:
            raise ValueError("it is too large")
        found = parse_pattern(pattern, python=python, ignore_case=ignore_case)
        return _Automaton(Series((found, Condition())) if whole else found).growth()
    except ValueError as error:
        raise PatternError(f"it can't be judged: {error}") from None


class _Automaton:
    """The characters that a pattern reads, each with those that may be read next.

    Position 0 stands for the search, which tries the pattern at each place. It also leads to what follows each state
    from which a match is certain: whoever gets there goes back to nothing before.
    """

    def __init__(self, pattern: Node) -> None:
        self._states = [_State(), _State()]
        start = self._add(pattern, _END)
        self._certain = self._certain_states()
        self._work = 0
        read = {number: state.characters for number, state in enumerate(self._states) if state.characters is not None}
        by_id = {id(characters): characters for characters in read.values()}  # copies share it; it may be large
        sets = list(dict.fromkeys(by_id.values()))
        found, letters = Alphabet(sets).letters(sets)
        masks = dict(zip(sets, found, strict=True))
        mask_of = {key: masks[characters] for key, characters in by_id.items()}
        self._reads = {number: mask_of[id(characters)] for number, characters in read.items()}
        self._reads[0] = (1 << letters) - 1
        self._closures: dict[int, Counter[int]] = {}
        begun = Counter({0: 1}) + self._closure(start)
        for state in self._certain:
            for following in self._states[state].following:
                begun += self._closure(following)
        self.following: dict[int, Counter[int]] = {0: begun}
        rest = [0]
        while rest:
            for position in self.following[rest.pop()]:
                if position not in self.following:
                    self.following[position] = self._closure(self._states[position].following[0])
                    rest.append(position)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MOST_WORK:
            raise ValueError("too many parts can follow one another")

    def _new(self, *following: int, characters: Characters | None = None, may_fail: bool = False) -> int:
        if len(self._states) >= _MOST_STATES:
            raise ValueError("it is too large")
        self._states.append(_State(characters, list(following), may_fail))
        return len(self._states) - 1

    def _add(self, node: Node, following: int) -> int:
        """Adds states for a part that is followed by a state; returns the first."""
        match node:
            case Series(parts):
                for part in reversed(parts):
                    following = self._add(part, following)
                return following
            case Alternatives(parts):
                return self._new(*[self._add(part, following) for part in parts])
            case Repeat(part, least, most):
                return self._add_repeat(part, least, most, following)
            case Condition(ahead):
                sides = [] if ahead is None else [self._add(ahead, _DEAD)]
                return self._new(following, *sides, may_fail=True)
            case _:
                return self._new(following, characters=node)

    def _add_repeat(self, part: Node, least: int, most: int | None, following: int) -> int:
        if least > _MOST_COPIES:  # as any number of times, and a count that may be wrong
            following, least, most = self._new(following, may_fail=True), 1, None
        if most is not None and most <= _MOST_COPIES:
            end = following
            for _ in range(most - least):
                following = self._new(self._add(part, following), end)
        elif least == 0:
            following = self._add_loop(part, following)[0]
        else:
            following, least = self._add_loop(part, following)[1], least - 1
        for _ in range(least):
            following = self._add(part, following)
        return following

    def _add_loop(self, part: Node, following: int) -> tuple[int, int]:
        """Adds a part that may come again; returns the state that leaves or repeats it, and the part's first."""
        loop = self._new()
        if not _may_be_empty(part):
            first = self._add(part, loop)
        else:
            again, first = self._new(loop, following), self._new()
            self._states[again].repeats = first
            self._states[first].following = [self._add(part, again)]
        self._states[loop].following = [first, following]
        return loop, first

    def _certain_states(self) -> set[int]:
        """Returns the states from which a match is certain, whatever follows in the text."""
        before: dict[int, list[int]] = {}
        for number, state in enumerate(self._states):
            if state.characters is None and not state.may_fail:
                for following in state.following:
                    before.setdefault(following, []).append(number)
        found, rest = {_END}, [_END]
        while rest:
            for number in before.get(rest.pop(), ()):
                if number not in found:
                    found.add(number)
                    rest.append(number)
        return found

    def _closure(self, state: int) -> Counter[int]:
        """Returns which characters may be read first from a state on, with the number of ways to get to each."""
        if state not in self._closures:
            found: Counter[int] = Counter()
            path: list[tuple[int, Iterator[int]]] = [(_DEAD, iter([state]))]
            on_path = Counter({_DEAD: 1})
            while path:
                following = next(path[-1][1], None)
                if following is None:
                    on_path[path.pop()[0]] -= 1
                elif following not in self._certain:
                    self._spend(1)
                    if following in self._reads:
                        found[following] += bool(self._reads[following])
                    else:
                        path.append((following, iter(self._following(following, on_path))))
                        on_path[following] += 1
            self._closures[state] = +found
        return self._closures[state]

    def _following(self, state: int, on_path: Mapping[int, int]) -> Sequence[int]:
        """Returns the states after one that reads nothing, where no character was read since those on the path."""
        found = self._states[state]
        if found.repeats is None:
            return found.following
        return found.following[1:] if on_path.get(found.repeats) else found.following[:1]

    def growth(self) -> tuple[int, int]:
        """Returns the degree by which ways grow with the text, -1 for exponentially, and the factor before it."""
        components = _components(self.following)
        number_of = {position: number for number, found in enumerate(components) for position in found}
        loops = [
            number for number, found in enumerate(components) if found[0] in self.following[found[0]] or len(found) > 1
        ]
        if any(self._doubles(components[number], number_of) for number in loops):
            return -1, 1
        return self._degree(components, number_of, loops), self._ways(components, number_of)

    def _doubles(self, component: Sequence[int], number_of: Mapping[int, int]) -> bool:
        """Tells whether a text leads in two ways from a position of a loop back to it."""
        own = number_of[component[0]]
        pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
        rest = [(position, position) for position in component]
        seen = set(rest)
        while rest:
            pair = rest.pop()
            left, right = (
                [(position, ways) for position, ways in self.following[side].items() if number_of[position] == own]
                for side in pair
            )
            if pair[0] == pair[1] and any(ways > 1 for _, ways in left):
                return True
            self._spend(len(left) * len(right) + 1)
            for one, _ in left:
                for other, _ in right:
                    if self._reads[one] & self._reads[other]:
                        pairs.setdefault((one, other), []).append(pair)
                        if (one, other) not in seen:
                            seen.add((one, other))
                            rest.append((one, other))
        back = [(position, position) for position in component]
        meet = set(back)
        while back:
            for pair in pairs.get(back.pop(), ()):
                if pair not in meet:
                    meet.add(pair)
                    back.append(pair)
        return any(one != other for one, other in meet)

    def _degree(self, components: Sequence[Sequence[int]], number_of: Mapping[int, int], loops: Sequence[int]) -> int:
        """Returns the longest chain of loops that can share a text; components come last to first."""
        reached: list[int] = []  # a bit for each component
        for number, component in enumerate(components):
            found = 1 << number
            for position in component:
                for following in self.following[position]:
                    self._spend(1)
                    if number_of[following] != number:
                        found |= reached[number_of[following]]
            reached.append(found)
        degrees: dict[int, int] = {}
        for number in reversed(loops):
            degrees[number] = 0
            for earlier, degree in degrees.items():
                if earlier != number and reached[earlier] >> number & 1:
                    if degree + 1 > degrees[number] and self._share(
                        components[earlier], components[number], number_of, reached
                    ):
                        degree += 1
                    degrees[number] = max(degrees[number], degree)
        return max(degrees.values(), default=0)

    def _share(
        self,
        earlier: Sequence[int],
        later: Sequence[int],
        number_of: Mapping[int, int],
        reached: Sequence[int],
    ) -> bool:
        """Tells whether one text leads around a loop, around a later one, and from the first to the second."""
        first, last = number_of[earlier[0]], number_of[later[0]]
        for begin in earlier:
            for end in later:
                rest = [(begin, begin, end)]
                seen: set[tuple[int, int, int]] = set()
                while rest:
                    one, middle, other = rest.pop()
                    for a in self.following[one]:
                        for c in self.following[other]:
                            both = self._reads[a] & self._reads[c]
                            if number_of[a] != first or number_of[c] != last or not both:
                                continue
                            self._spend(len(self.following[middle]))
                            for b in self.following[middle]:
                                if not both & self._reads[b] or not reached[number_of[b]] >> last & 1:
                                    continue
                                if (a, b, c) == (begin, end, end):
                                    return True
                                if (a, b, c) not in seen:
                                    seen.add((a, b, c))
                                    rest.append((a, b, c))
        return False

    def _ways(self, components: Sequence[Sequence[int]], number_of: Mapping[int, int]) -> int:
        """Returns in how many ways one text may be read at most if each loop is gone through once."""
        ways: dict[int, int] = {}
        for number, component in enumerate(components):  # those that follow come first
            most = 1
            for position in component:
                by_letter: Counter[int] = Counter()
                for following, times in self.following[position].items():
                    if number_of[following] != number:
                        self._spend(self._reads[following].bit_count())
                        for letter in _bits(self._reads[following]):
                            by_letter[letter] += times * ways[number_of[following]]
                most = max(most, max(by_letter.values(), default=0))
            ways[number] = most
        return ways[number_of[0]]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length()
        mask ^= low


def _may_be_empty(node: Node) -> bool:
    match node:
        case Series(parts):
            return all(map(_may_be_empty, parts))
        case Alternatives(parts):
            return any(map(_may_be_empty, parts))
        case Repeat(part, least, _):
            return least == 0 or _may_be_empty(part)
        case _:
            return isinstance(node, Condition)


def _components(following: Mapping[int, Mapping[int, int]]) -> list[list[int]]:
    """Returns the strongly connected components, each after those that it leads to (Tarjan)."""
    index: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_positions: list[int] = []
    is_open: dict[int, int] = {}  # position -> its place among those
    found: list[list[int]] = []
    for root in following:
        if root in index:
            continue
        index[root] = lowest[root] = len(index)
        is_open[root] = len(open_positions)
        open_positions.append(root)
        path = [(root, iter(following[root]))]
        while path:
            position, rest = path[-1]
            reached = next(rest, None)
            if reached is None:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[position])
                if lowest[position] == index[position]:
                    cut = is_open[position]
                    found.append(open_positions[cut:])
                    for member in found[-1]:
                        del is_open[member]
                    del open_positions[cut:]
            elif reached not in index:
                index[reached] = lowest[reached] = len(index)
                is_open[reached] = len(open_positions)
                open_positions.append(reached)
                path.append((reached, iter(following[reached])))
            elif reached in is_open:
                lowest[position] = min(lowest[position], index[reached])
    return found
