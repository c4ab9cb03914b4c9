"""Chat templates that end: each rendering has a budget of steps, and what a step may make is bounded by it.

A chat template is a program that came with a model. The sandbox of transformers keeps it from reaching
anything outside; it may still loop for ever, or write a text of a terabyte. So every turn of a loop, call,
filter and operator is counted here, and costs more the more it takes or makes: a step for each 256
characters or, of a list, for each entry. A step is paid for before it is taken. What a rendering may spend
grows with the conversation, and is some sixty times what the templates of known models need.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LONGEST = 1 << 18
"""Characters of a template."""
_STEPS, _STEPS_A_CHARACTER = 100_000, 30
_BITS = 4096  # of a number
_WIDTH = re.compile(r"\d{5}|\*|\{[^}]*\{")  # in a format: a number of five digits, or one given elsewhere
# These look only at the outside of a value.
_SHALLOW = frozenset({"length", "count", "first", "last", "default", "d", "list", "reverse"})
_COMPARING = frozenset({"in", "eq", "equalto", "==", "ne", "!="})


class SpentError(TemplateError):
    """The template asks for more than a rendering may take."""


def compiled(source: str) -> Template:
    """A template as transformers compiles it, with a budget; to be rendered by `render`.

    Raises:
        TemplateError: it can't be compiled.
    """
    if len(source) > LONGEST:
        raise SpentError(f"it has {len(source):,} characters; at most {LONGEST:,} are read")
    environment = _Environment()
    try:
        return environment.from_string(source)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:  # of the Python that it becomes
        raise SpentError(f"it is nested too deeply ({type(error).__name__})") from error


def render(template: Template, **variables: Any) -> str:
    """What the template makes of the variables; raises SpentError, or whatever the template raises."""
    environment: Any = template.environment
    environment.left = _STEPS + _STEPS_A_CHARACTER * _characters([variables], 1 << 40)
    return template.render(**variables)


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of transformers, with everything that takes time or memory paid for."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        theirs = _compile_jinja_template("").environment
        super().__init__(
            trim_blocks=theirs.trim_blocks,
            lstrip_blocks=theirs.lstrip_blocks,
            extensions=[type(extension) for extension in theirs.extensions.values()],
        )
        self.left = _STEPS
        self.globals = {name: value for name, value in theirs.globals.items() if name != "lipsum"}
        self.filters = {name: self._paid(name, function) for name, function in theirs.filters.items()}
        # What gets the context is never computed in advance.
        self.filters |= {
            "_paid_for": pass_context(functools.partial(self._paid_for)),
            "_step": pass_context(functools.partial(self._step)),
        }
        self.tests = {
            name: self._paid(name, function) if name in _COMPARING else function
            for name, function in theirs.tests.items()
        }

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """As the sandbox's."""
        arguments = [*args, *kwargs.values()]
        if isinstance(__obj, Macro):  # its text is paid for turn by turn
            __self._spend()
        elif isinstance(owner := _owner(__obj), str):
            if __obj.__name__.startswith("format"):
                _check_width(owner)
                arguments = [_unsized(value) for value in arguments]
            __self._pay(owner, arguments)
        else:
            searched = [owner] if getattr(__obj, "__name__", "") in ("index", "count") else []
            __self._spend(_characters([*searched, *arguments], __self._room))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """As the sandbox's."""
        if type(left) is str and type(right) is str and operator == "+":  # most of all there are
            self._spend(len(left) + len(right))
            return left + right
        if operator == "%" and isinstance(left, str):
            _check_width(left)
            self._pay(left, [_unsized(right)])
        elif isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(right, 0)
                if operator == "**"
                else left.bit_length() + right.bit_length()
            )
            if bits > _BITS:
                raise SpentError(f"it computes a number of {bits:,} bits")
        elif operator == "*":
            self._pay(*(([left], [right]) if isinstance(right, int) else ([right], [left])))
        else:
            self._spend(_characters([left, right], self._room))
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counted().visit(super()._parse(source, name, filename))
        return tree

    def _spend(self, characters: int = 0) -> None:
        self.left -= 1 + (characters >> 8)
        if self.left < 0:
            raise SpentError("it takes too many steps or makes too long a text: it may never end")

    @property
    def _room(self) -> int:
        """More characters than may still be paid for."""
        return (self.left + 2) << 8

    def _pay(self, value: Any, arguments: Iterable[Any]) -> None:
        """Pay for what a value may become: each argument may stand in it as often as it has characters."""
        product = 1 + _characters([value], self._room)
        for argument in arguments:
            product *= 1 + _size(argument) + _characters([argument], self._room)
        self._spend(product)

    def _paid(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test that is paid for before it works."""
        # Jinja hands some of them what they run in, first.
        own = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            value, *arguments = args[own:] or ("",)
            if name == "format":
                _check_width(str(value))
                arguments = [_unsized(entry) for entry in arguments]
            if name in _SHALLOW:
                self._spend(len(value) if hasattr(type(value), "__len__") else 0)
            else:
                self._pay(value, [*arguments, *kwargs.values()])
            return function(*args, **kwargs)

        return filtered

    def _paid_for(self, _: Context, value: Any) -> Any:
        """Pay for a value that the template made or looks through."""
        self._spend(len(value) if type(value) is str else _characters([value], self._room))
        return value

    def _step(self, _: Context, characters: int) -> bool:
        """Pay for a turn through a part of the template with so many characters of text."""
        self._spend(characters)
        return True


class _Counted(NodeTransformer):
    """Adds calls of `_paid_for` and `_step` to a template's tree, where it works without a call."""

    def visit_For(self, node: nodes.For) -> Any:
        """Each turn is paid for, also one that the loop's condition leaves out."""
        if node.test is not None:
            node.test = nodes.And(_call("_step", nodes.Const(0), node), node.test, lineno=node.lineno)
        return self._turn(node)

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        """What is written is paid for."""
        self.generic_visit(node)
        node.nodes = [
            entry if isinstance(entry, nodes.TemplateData) else _call("_paid_for", entry, node)
            for entry in node.nodes
        ]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        """What is searched or compared with more than a word of the template is paid for."""
        self.generic_visit(node)
        if not all(_is_plain(operand.expr) for operand in node.ops):
            node.expr = _call("_paid_for", node.expr, node)
            for operand in node.ops:
                operand.expr = _call("_paid_for", operand.expr, node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Concat:
        """What is joined is paid for."""
        self.generic_visit(node)
        node.nodes = [_call("_paid_for", entry, node) for entry in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        """What a piece is cut from is paid for."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _call("_paid_for", node.node, node)
        return node

    def _display(self, node: Any) -> nodes.Expr:
        """A list, tuple or dictionary is paid for with all that it holds."""
        self.generic_visit(node)
        display: nodes.Expr = node
        is_target = getattr(node, "ctx", "load") != "load"
        return display if is_target or _is_plain(node) else _call("_paid_for", node, node)

    def _turn(self, node: Any) -> Any:
        texts = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        turn = nodes.ExprStmt(_call("_step", nodes.Const(texts), node), lineno=node.lineno)
        node.body.insert(0, turn)
        return node

    visit_List = visit_Tuple = visit_Dict = _display  # noqa: N815
    visit_Macro = visit_CallBlock = visit_Block = _turn  # noqa: N815


def _call(name: str, value: nodes.Expr, place: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=place.lineno)


def _is_plain(node: nodes.Node) -> bool:
    """Whether it is written in the template as it is."""
    if isinstance(node, nodes.Literal) and not isinstance(node, nodes.Const | nodes.TemplateData):
        return all(map(_is_plain, node.iter_child_nodes()))
    return isinstance(node, nodes.Const | nodes.Pair) and all(map(_is_plain, node.iter_child_nodes()))


def _characters(values: list[Any], most: int) -> int:
    """Characters in all of the values, an entry of a list counted as 256; no more are counted than `most`."""
    total, left = 0, list(values)
    while left and total <= most:
        value = left.pop()
        if type(value) is str:  # most of all there are
            total += len(value)
        elif value is None or type(value) is bool:
            continue
        elif isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, dict):
            total += len(value) << 8
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            total += len(value) << 8
            left += value
        elif isinstance(value, range):
            total += len(value) << 8
    return total


def _size(value: Any) -> int:
    """A number counts as itself: it may be a width or a count."""
    return abs(value) if isinstance(value, int) and not isinstance(value, bool) else 0


def _unsized(value: Any) -> Any:
    """A value that is written, and not a width."""
    return "" if isinstance(value, int | float) else value


def _owner(called: Any) -> Any:
    """What a method belongs to; the sandbox wraps `format`."""
    if not isinstance(called, BuiltinMethodType | FunctionType | MethodType):
        return None
    return getattr(getattr(called, "__wrapped__", called), "__self__", None)


def _check_width(form: str) -> None:
    if _WIDTH.search(form):
        raise SpentError(
            f"it formats by {form[:40]!r}: a width of at most four digits, given there, is required"
        )
