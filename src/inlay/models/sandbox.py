"""The Jinja environment chat templates run in: Hugging Face's functions, no way out, and a budget.

Budget of one rendering: loop rounds and calls are counted (every `for` is rewritten to draw on it, every call passes
through the sandbox), as are the lengths of joined, added and repeated texts and the output; the clock is looked at
while counting. Filters that make much out of little (center, indent, ...) do not exist here. So a rendering ends by
itself in any thread, without signals. A single built-in filter over a long list is bounded by that list alone, so a
template that is itself hostile can still ask for much memory: templates come from the operator, never from clients.
"""

from __future__ import annotations

import contextvars
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes

MAXIMUM_STEPS = 1_000_000
MAXIMUM_CHARACTERS = 8 * 2**20
MAXIMUM_SECONDS = 5.0
_REMOVED_FILTERS = ("center", "format", "wordwrap", "indent", "batch", "slice", "random", "pprint", "urlize", "xmlattr")
_PADDING_METHODS = ("center", "ljust", "rjust", "zfill", "expandtabs")
# A width in a format ("{:>99999}", "%99999d", "{:>{}}") makes much out of little.
_WIDTH = re.compile(r"%[^%]*[0-9*]{4,}|%\*|\{[^}]*:[^}]*([0-9]{4,}|\{)")


class BudgetError(Exception):
    """A rendering used up its budget; the text says which."""


class Budget:
    """Counts of one rendering."""

    def __init__(self) -> None:
        self.steps = 0
        self.deadline = time.monotonic() + MAXIMUM_SECONDS

    def step(self) -> None:
        """One loop round or call."""
        self.steps += 1
        if self.steps > MAXIMUM_STEPS:
            raise BudgetError(f"it took more than {MAXIMUM_STEPS} steps")
        if self.steps % 256 == 0 and time.monotonic() > self.deadline:
            raise BudgetError(f"it took more than {MAXIMUM_SECONDS:g} s")


_budget: contextvars.ContextVar[Budget] = contextvars.ContextVar("inlay_template_budget")


def render_bounded(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """The rendered text; BudgetError when it takes too long or grows too large."""
    token = _budget.set(Budget())
    try:
        pieces, size = [], 0
        for piece in template.generate(variables):
            size += len(piece)
            if size > MAXIMUM_CHARACTERS:
                raise BudgetError(f"its text is longer than {MAXIMUM_CHARACTERS} characters")
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _budget.reset(token)


class TemplateEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """As transformers sets it up, with the budget built in. Templates are compiled once and rendered often."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation])
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        self.filters |= {"tojson": _tojson, "inlay_counted": _counted, "inlay_bounded": _bounded}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime(now)}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "inlay_counted", [], [], None, None, lineno=loop.lineno)
        _bound_joins(tree)
        tree.set_environment(self)
        return tree

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template: counted, and kept from padding texts without end."""
        _step()
        if getattr(obj, "__name__", "") in _PADDING_METHODS and any(
            isinstance(item, int) and item > MAXIMUM_CHARACTERS for item in args
        ):
            raise BudgetError(f"it padded a text to more than {MAXIMUM_CHARACTERS} characters")
        if isinstance(getattr(obj, "__self__", None), str) and obj.__name__ == "format" and _WIDTH.search(obj.__self__):
            raise BudgetError("it formatted a text with a width")
        return _bounded(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%` with their results kept small."""
        if operator == "*":
            sizes = [len(item) if isinstance(item, (str, list, tuple)) else item for item in (left, right)]
            if any(isinstance(item, (str, list, tuple)) for item in (left, right)) and sizes[0] * sizes[1] > MAXIMUM_CHARACTERS:
                raise BudgetError(f"it repeated a text to more than {MAXIMUM_CHARACTERS} characters")
        if operator == "**" and (abs(left) > 2**16 or abs(right) > 64):
            raise BudgetError("it raised a number to a high power")
        if operator == "%" and isinstance(left, str) and _WIDTH.search(left):
            raise BudgetError("it formatted a text with a width")
        return _bounded(super().call_binop(context, operator, left, right))


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's tokens for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _bound_joins(node: nodes.Node) -> None:
    """Wrap every `a ~ b`, from the inside out."""
    for field, value in node.iter_fields():
        items = value if isinstance(value, list) else [value]
        for index, item in enumerate(items):
            if not isinstance(item, nodes.Node):
                continue
            _bound_joins(item)
            if isinstance(item, nodes.Concat):
                wrapped = nodes.Filter(item, "inlay_bounded", [], [], None, None, lineno=item.lineno)
                if isinstance(value, list):
                    value[index] = wrapped
                else:
                    setattr(node, field, wrapped)


def _step() -> None:
    budget = _budget.get(None)
    if budget is not None:
        budget.step()


def _counted(iterable: Any) -> Iterator[Any]:
    for item in iterable:
        _step()
        yield item


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > MAXIMUM_CHARACTERS:
        raise BudgetError(f"it made a value longer than {MAXIMUM_CHARACTERS}")
    return value


def _strftime(now: Callable[[], datetime]) -> Callable[[str], str]:
    return lambda form: now().strftime(form)


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own escapes HTML, which models were not trained on.
    if indent is not None and not 0 <= indent <= 16:
        raise BudgetError(f"it indents JSON by {indent}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
