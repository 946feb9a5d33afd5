"""Jinja's sandbox, in which everything that a template does is counted and bounded before it is done."""

from __future__ import annotations

import functools
import operator
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import pass_environment

from graftkit.corpus.template_budget import CHARACTERS_A_STEP, Budget, Counted, LimitError
from graftkit.corpus.template_costs import (
    ATTRIBUTES,
    FILTERS,
    LAZY,
    METHODS,
    TESTS,
    Cost,
    check_key,
    check_number,
    check_width,
    cost_of_containing,
    cost_of_percent,
)

__all__ = ["MAX_SOURCE", "CountingEnvironment"]

MAX_SOURCE = 100_000
"""The most characters of a template."""

_SHORT = 256
"""Texts of up to so many characters are paid for by the expression that makes them."""

_JINJA_TESTS: dict[str, Any] = {**JINJA_TESTS}
_OF_DICTIONARIES = frozenset(dir(dict))
_OF_LOOPS = frozenset(
    ["depth", "depth0", "first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"]
)


class CountingEnvironment(ImmutableSandboxedEnvironment):
    """An environment whose templates spend a budget.

    Python code is compiled from the template as by jinja2, and so renders as fast; each block of it begins by paying
    for its expressions, and what may take or make more than a constant goes through this object.

    Attributes:
        budget: What is left of the rendering that is going on.
    """

    intercepted_binops = frozenset(["-", "*", "/", "//", "**", "%"])
    key = staticmethod(check_key)

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, **options)
        self.code_generator_class = _CountingGenerator
        self.budget = Budget()
        self.filters = {name: self._counted_filter(name, JINJA_FILTERS[name], FILTERS[name]) for name in FILTERS}
        self.filters["unique"] = self._counted_filter("unique", _unique, FILTERS["unique"])
        self.tests = {name: self._counted_test(_JINJA_TESTS[name], cost) for name, cost in TESTS.items()}
        self.tests["in"] = self.contains
        for name in ("odd", "even", "divisibleby"):
            self.tests[name] = _of_numbers(_JINJA_TESTS[name])
        self.globals.pop("lipsum")
        self.globals["dict"] = make_dict
        self.globals["range"] = _range

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Puts another function in a filter's place; it costs what the filter does."""
        self.filters[name] = self._counted_filter(name, function, FILTERS[name])

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Looks an attribute up, then an item; the usual ones without asking whether they are safe."""
        kind = type(obj)
        if kind is dict and attribute not in _OF_DICTIONARIES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if (kind is LoopContext and attribute in _OF_LOOPS) or (kind is str and (kind, attribute) in METHODS):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    # What compiled templates call in place of jinja2's own functions.

    def tick(self, steps: int) -> bool:
        """Pays for a condition of a loop."""
        self.budget.spend(steps)
        return True

    def add(self, values: tuple[Any, ...]) -> Any:
        """Returns `a + b + c ...`."""
        total = 0
        for value in values:
            if type(value) is not str:
                return functools.reduce(self._add, values)
            total += len(value)
        if total > _SHORT:
            self.budget.spend(total // CHARACTERS_A_STEP)
        return "".join(values)

    def _add(self, left: Any, right: Any) -> Any:
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            self.budget.spend(len(left) + len(right))
        elif not _are_numbers(left, right):
            self.budget.spend_on(left, right)
        return check_number(left + right)

    def join(self, values: tuple[Any, ...]) -> str:
        """Returns `a ~ b ~ c ...`."""
        return "".join([self.text(value) for value in values])

    def text(self, value: Any) -> str:
        """Returns a value as it is written."""
        if type(value) is str:
            if len(value) > _SHORT:
                self.budget.spend(len(value) // CHARACTERS_A_STEP)
            return value
        self.budget.spend_on(value, times=4)
        return str(value)

    def concatenate(self, parts: Iterable[str]) -> str:
        """Joins what a block has written."""
        text = "".join(parts)
        self.budget.spend(len(text) // CHARACTERS_A_STEP)
        return text

    def read(self, value: Any) -> Any:
        """Returns a value that a comparison reads."""
        self.budget.spend_on(value)
        return value

    def taken(self, value: Any) -> Any:
        """Returns what a slice took."""
        if isinstance(value, str | list | tuple):
            self.budget.spend(len(value) // (CHARACTERS_A_STEP if isinstance(value, str) else 1))
        return value

    def contains(self, item: Any, container: Any) -> bool:
        """Returns `item in container`."""
        self.budget.spend(cost_of_containing(self.budget, item, container))
        return item in container

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Computes one of the other operators."""
        if operator == "-" and type(left) is int and type(right) is int:
            return check_number(left - right)
        if operator == "*":
            return self._multiply(left, right)
        if operator == "%" and isinstance(left, str):
            self.budget.spend(cost_of_percent(self.budget, left, right))
        elif not _are_numbers(left, right) and not isinstance(left, Undefined) and not isinstance(right, Undefined):
            raise TypeError(f"{type(left).__name__} {operator} {type(right).__name__} is not calculated")
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            check_number(1 << min(max(left.bit_length() * right, 0), 1 << 16))
        return check_number(super().call_binop(context, operator, left, right))

    def _multiply(self, left: Any, right: Any) -> Any:
        many, count = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(many, str | list | tuple) and isinstance(count, int):
            a_time = len(many) / CHARACTERS_A_STEP if type(many) is str else self.budget.weigh(many)
            self.budget.spend(int(a_time * min(max(count, 0), 1 << 40)))
        return check_number(operator.mul(left, right))

    def call(__self, __context: Context, __callee: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls a macro, a method or a function."""
        kwargs.pop("_loop_vars", None)  # jinja2 gives the variables around a call to each; only filters ask for them
        kwargs.pop("_block_vars", None)
        budget = __self.budget
        if type(__callee) is types.BuiltinMethodType:
            return _call_method(budget, __callee, args, kwargs)
        budget.spend(len(args) + len(kwargs))
        if not isinstance(__callee, Macro | BlockReference | LoopContext):
            budget.spend_on(*args, *kwargs.values())
        return super().call(__context, __callee, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Returns the counted form of a text's method `format` or `format_map`; None for another value."""
        if not isinstance(value, types.MethodType | types.BuiltinMethodType):
            return None
        if value.__name__ not in ("format", "format_map") or not isinstance(value.__self__, str):
            return None
        pattern, formatter = value.__self__, _CountingFormatter(self)
        if value.__name__ == "format_map":
            return lambda mapping: formatter.vformat(pattern, (), mapping)
        return lambda *args, **kwargs: formatter.vformat(pattern, args, kwargs)

    def _counted_filter(self, name: str, function: Callable[..., Any], cost: Cost) -> Callable[..., Any]:
        context = 1 if hasattr(function, "jinja_pass_arg") else 0
        lazy, path = name in LAZY, ATTRIBUTES.get(name)

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            first, given = args[:context], args[context:]
            if "attribute" in kwargs or path is not None:
                _check_path(kwargs["attribute"] if "attribute" in kwargs else (*given, *[None] * 4)[1 + (path or 0)])
            if given and isinstance(given[0], Counted) and not lazy:
                given = (list(given[0]), *given[1:])
            self.budget.spend(cost(self.budget, *given, **kwargs))
            result = check_number(function(*first, *given, **kwargs))
            return Counted(result, self.budget) if isinstance(result, Iterator) else result

        return counted

    def _counted_test(self, function: Callable[..., Any], cost: Cost | None) -> Callable[..., Any]:
        if cost is None:
            return function
        context = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def counted(*args: Any) -> Any:
            self.budget.spend(cost(self.budget, *args[context:]))
            return function(*args)

        return counted


class _CountingFormatter(SandboxedFormatter):
    """`str.format` with bounded widths."""

    def __init__(self, environment: CountingEnvironment) -> None:
        super().__init__(environment)
        self._budget = environment.budget

    def vformat(self, format_string: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Fills a pattern in."""
        self._budget.spend(len(format_string))
        if type(format_string) is not str:
            raise LimitError("formats a text that was marked as safe")
        return super().vformat(format_string, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Writes a field."""
        for number in re.findall("[0-9]+", format_spec):
            self._budget.spend(check_width(int(number[:10])) // CHARACTERS_A_STEP)
        self._budget.spend_on(value, times=4)
        return str(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Writes a value for `!r`, `!s` and `!a`."""
        self._budget.spend_on(value, times=4)
        return super().convert_field(value, conversion)


def _call_method(budget: Budget, method: types.BuiltinMethodType, args: Any, kwargs: Any) -> Any:
    owner, name = method.__self__, method.__name__
    kind = str if isinstance(owner, str) else type(owner)
    cost = METHODS.get((kind, name))
    if cost is None:
        raise LimitError(f"calls {kind.__name__}.{name}, whose cost is not known")
    budget.spend(cost(budget, owner, *args, **kwargs))
    return method(*args, **kwargs)


def _check_path(path: Any) -> None:
    if path is not None and not isinstance(path, str | int):
        raise LimitError("looks an attribute up that is no name")
    if isinstance(path, str) and len(re.split("[.,]", path)) > 16:
        raise LimitError("looks up an attribute of an attribute over 16 times")


def _range(*bounds: Any) -> range:
    """Returns a range as short as the sandbox lets one be."""
    try:
        return safe_range(*bounds)
    except OverflowError:
        raise LimitError(f"counts through over {MAX_RANGE:,} numbers") from None


def _are_numbers(left: Any, right: Any) -> bool:
    return isinstance(left, int | float) and isinstance(right, int | float)


def _of_numbers(test: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*values: Any) -> Any:
        if not all(isinstance(value, int | float) for value in values):
            raise TypeError("a number is tested that is none")
        return test(*values)

    return counted


@pass_environment
def _unique(environment: Any, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Iterator[Any]:
    """Jinja's filter `unique`, for keys that don't collide."""
    key = make_attrgetter(environment, attribute)
    checked = [value for value in value if check_key(key(value)) is not NotImplemented]
    found: Iterator[Any] = JINJA_FILTERS["unique"](environment, checked, case_sensitive, attribute)
    return found


def make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Python's `dict()`.

    Raises:
        LimitError: A key of it could collide.
    """
    if args and not isinstance(args[0], Mapping):
        args = ([(check_key(key), value) for key, value in args[0]], *args[1:])
    return dict(*args, **kwargs)


# --- compiling ------------------------------------------------------------------------------------------------------

_WEIGHTS: dict[type[nodes.Node], int] = {
    nodes.Call: 8,
    nodes.Filter: 8,
    nodes.Test: 3,
    nodes.Getattr: 3,
    nodes.Getitem: 3,
    nodes.Dict: 8,
    nodes.List: 4,
    nodes.Tuple: 4,
    nodes.Macro: 16,
    nodes.CallBlock: 16,
}
"""Kind of node -> its steps; 1 for others. Those that make an object weigh more, for its memory."""


class _CountingGenerator(CodeGenerator):
    """Compiles a template so that it counts."""

    _stored = 0
    _defaults = 0

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        self._stored = sum(1 for _ in node.find_all(nodes.Name))
        super().visit_Template(node, frame)

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("concat = environment.concatenate")
        self.writeline("spend = environment.budget.spend")

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes)
        self.writeline(f"spend({1 + self._defaults + sum(map(self._steps, body))})")
        self._defaults = 0
        super().blockvisit(body, frame)

    def _steps(self, node: nodes.Node) -> int:
        """Returns the steps of a node without the blocks in it, which pay for themselves."""
        steps = _WEIGHTS.get(type(node), 1)
        if isinstance(node, nodes.TemplateData):
            steps += len(node.data) // CHARACTERS_A_STEP
        if isinstance(node, nodes.Block | nodes.Include):
            steps += self._stored  # jinja2 may copy all variables for it
        inside = ("body", "else_") if isinstance(node, nodes.Stmt) else ()
        return steps + sum(map(self._steps, node.iter_child_nodes(exclude=inside)))

    def macro_body(self, node: nodes.Macro | nodes.CallBlock, frame: Frame) -> Any:
        self._defaults = sum(map(self._steps, node.defaults))
        return super().macro_body(node, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:
            paid = nodes.EnvironmentAttribute("tick")
            price = nodes.Const(12 + self._steps(node.test))
            tick = nodes.Call(paid, [price], [], None, None, lineno=node.lineno)
            node.test = nodes.And(tick, node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier, frame: Frame) -> None:
        self.fail("autoescape is not supported in a chat template", node.lineno)

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return node.data

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        is_text = isinstance(node, nodes.Const) and isinstance(node.value, str)
        self.write("(" if is_text else "environment.text(")

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        values: list[nodes.Expr] = []
        left: nodes.Expr = node
        while isinstance(left, nodes.Add):
            values.append(left.right)
            left = left.left
        self._write_call("add", [left, *reversed(values)], frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._write_call("join", node.nodes, frame)

    def _write_call(self, name: str, values: Iterable[nodes.Expr], frame: Frame) -> None:
        self.write(f"environment.{name}((")
        for value in values:
            self.visit(value, frame)
            self.write(", ")
        self.write("))")

    def _write_passed(self, name: str, value: nodes.Node, frame: Frame) -> None:
        self.write(f"environment.{name}(")
        self.visit(value, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if len(node.ops) == 1 and node.ops[0].op in ("in", "notin"):
            if _are_constants(sides[1]):
                super().visit_Compare(node, frame)
                return
            self.write("(not environment.contains(" if node.ops[0].op == "notin" else "(environment.contains(")
            self.visit(sides[0], frame)
            self.write(", ")
            self.visit(sides[1], frame)
            self.write("))")
            return
        if len(sides) == 2 and any(isinstance(side, nodes.Const) for side in sides):
            super().visit_Compare(node, frame)
            return
        self.write("(")
        self._write_passed("read", node.expr, frame)
        for operand in node.ops:
            self.write(f" {_OPERATORS[operand.op]} ")
            self._write_passed("read", operand.expr, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self.write("environment.taken(")
            super().visit_Getitem(node, frame)
            self.write(")")
            return
        self.write("environment.getitem(")
        self.visit(node.node, frame)
        self.write(", ")
        self._write_key(node.arg, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for pair in node.items:
            self._write_key(pair.key, frame)
            self.write(": ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")

    def _write_key(self, key: nodes.Expr, frame: Frame) -> None:
        if isinstance(key, nodes.Const) and not isinstance(key.value, int):
            self.visit(key, frame)
        else:
            self._write_passed("key", key, frame)


_OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}


def _are_constants(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.List | nodes.Tuple) and all(isinstance(item, nodes.Const) for item in node.items)
