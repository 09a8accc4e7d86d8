"""Grammars for answers: a constraint becomes a Matcher, which says after each token which ones may follow.

The work is llguidance's, an extra dependency that is imported when a first request wants it. Schemas and grammars come
from clients: sizes are capped, the library's own limits are set, and it compiles on a thread of its own with a deep
stack, because rules that name each other in a long chain would overflow an ordinary one and end the process.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from inlay.errors import RequestError
from inlay.models import Tokenizer
from inlay.specs.generation import Constraint

SIZE_LIMIT = 128 * 1024
"""Characters of a schema or grammar; the time to compile grows with them."""
REGEX_LIMIT = 8 * 1024
KEPT = 32
"""Compiled grammars that are kept for the next request with the same one."""
STACK_BYTES = 256 * 2**20
LEXER_STATES = 50_000
WHITESPACE = r" ?|\n[ \t]{0,32}"
"""Between the parts of JSON: none, a space, or a line break and an indent. Bounded, so that a model cannot spend its answer
on it."""


class Matcher:
    """Where one text stands in a grammar; `ends` are the tokens that end it. Not thread-safe."""

    def __init__(self, native: Any, *, ends: Sequence[int], vocabulary: int) -> None:
        self._native = native
        self._vocabulary = vocabulary
        self.ends = tuple(ends)

    def mask(self, *, without_ends: bool = False) -> bytes:
        """A bit for each token that may come now, lowest first, all of them 0 after an error; end tokens are among them
        where the text may end, `without_ends` only if nothing else may come."""
        size = (self._vocabulary + 7) // 8
        found = bytes(self._native.compute_bitmask())[:size]
        if self.error:
            return bytes(size)
        if not without_ends:
            return found
        fewer = bytearray(found)
        for token in self.ends:
            fewer[token // 8] &= ~(1 << token % 8)
        return bytes(fewer) if any(fewer) else found

    def allows(self, token: int) -> bool:
        """Whether `token` may come now."""
        return bool(self._native.validate_tokens([token]) == 1)

    def accept(self, token: int) -> bool:
        """Go on by `token`; False, with `error` set for good, where it may not come."""
        return bool(self._native.consume_token(token))

    def go_back(self, count: int) -> None:
        """Take the last `count` tokens back, none of which may be an end token."""
        if count:
            self._native.rollback(count)

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return bool(self._native.is_stopped())

    @property
    def error(self) -> str:
        """What went wrong, in the library's words; empty while nothing has."""
        return _brief(self._native.get_error()) if self._native.is_error() else ""

    def copy(self) -> Matcher:
        """One that goes on from here by itself."""
        return Matcher(self._native.deep_copy(), ends=self.ends, vocabulary=self._vocabulary)


class GrammarCompiler:
    """Compiles for one model's tokenizer; `ends` are its end tokens. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = tuple(ends)
        self._native: Any = None
        self._kept: OrderedDict[Constraint, Matcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint) -> Matcher:
        """A fresh matcher. Takes up to some 100 ms. Raises RequestError: 501 without the library, 400 for a constraint
        that is too large, not well formed, or that no text of this tokenizer can meet."""
        check_size(constraint)
        with self._lock:
            found = self._kept.get(constraint)
            if found is None:
                found = _on_deep_stack(lambda: self._compile(constraint), constraint)
                self._kept[constraint] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(constraint)
            return found.copy()

    def _compile(self, constraint: Constraint) -> Matcher:
        library = _library(constraint)
        try:
            if self._native is None:
                self._native = library.LLTokenizer(
                    self._tokenizer.to_json(), n_vocab=self._vocabulary, eos_token=list(self._ends) or None
                )
            grammar = _grammar(library, constraint)
        except ValueError as cause:
            raise _refusal(constraint, f"cannot be read: {_brief(str(cause))}") from cause
        limits = library.LLParserLimits(max_lexer_states=LEXER_STATES, verbose_errors=False)
        matcher = Matcher(
            library.LLMatcher(self._native, grammar, log_level=0, limits=limits), ends=self._ends, vocabulary=self._vocabulary
        )
        if matcher.error:
            raise _refusal(constraint, f"cannot be used: {matcher.error}")
        if not any(matcher.mask()):
            raise _refusal(constraint, f"allows no answer: {matcher.error or 'no token of this model can begin it'}")
        return matcher


def check_size(constraint: Constraint) -> None:
    """Raise RequestError for a constraint over the caps."""
    limit = REGEX_LIMIT if constraint.kind == "regex" else SIZE_LIMIT
    if len(constraint.text) > limit:
        raise _refusal(constraint, f"has {len(constraint.text)} characters, expected at most {limit}")


def _grammar(library: Any, constraint: Constraint) -> Any:
    """What the library takes. Raises ValueError."""
    of = library.LLMatcher
    match constraint.kind:
        case "json_object":
            return of.grammar_from_json_schema({"type": "object"}, overrides=_json_options(constraint))
        case "json":
            return of.grammar_from_json_schema(constraint.text, overrides=_json_options(constraint))
        case "regex":
            return of.grammar_from_regex(constraint.text)
        case "choice":
            choices = json.loads(constraint.text)
            return of.grammar_from_lark("start: " + " | ".join(json.dumps(item) for item in choices))
        case "lark":
            return of.grammar_from_lark(constraint.text)
        case _:
            return library.grammar_from("grammar", constraint.text)


def json_options(whitespace: str | None) -> dict[str, Any]:
    """How JSON is laid out: white space by the pattern given, the bounded one by default, none at all where it is empty."""
    return {"whitespace_flexible": False} if whitespace == "" else {"whitespace_pattern": whitespace or WHITESPACE}


def _json_options(constraint: Constraint) -> dict[str, Any]:
    return json_options(constraint.whitespace)


def _library(constraint: Constraint) -> Any:
    try:
        import llguidance
    except ImportError as cause:
        raise RequestError(
            "structured output needs llguidance, which is not installed where the engine runs",
            param=constraint.field,
            code="structured_output_unavailable",
            status=501,
            hint="pip install 'inlay[structured]'",
        ) from cause
    return llguidance


def _on_deep_stack(work: Callable[[], Matcher], constraint: Constraint) -> Matcher:
    """What `work` gives, from a thread with a deep stack; what it raises is raised here. A panic of the library, which is
    no Exception, is a fault of the constraint."""
    found: list[Matcher] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as fault:  # noqa: BLE001  # thread edge: raised again by the caller
            faults.append(fault)

    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="grammar")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if faults:
        if not isinstance(faults[0], Exception):
            raise _refusal(constraint, f"cannot be used: {_brief(str(faults[0]))}") from faults[0]
        raise faults[0]
    return found[0]


def _brief(text: str) -> str:
    """One line of the library's words."""
    line = " ".join(text.replace("<non-verbose/>", "").split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def _refusal(constraint: Constraint, fault: str) -> RequestError:
    return RequestError(
        f"the {constraint.name} {fault}",
        param=constraint.field,
        code="invalid_grammar",
        hint="see the guide to structured output",
    )
