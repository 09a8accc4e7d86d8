"""From the bytes of a body to a typed request: size is the caller's matter, shape and values are checked here."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from inlay.errors import RequestError
from inlay.wire.chat import ChatRequest
from inlay.wire.completions import CompletionRequest
from inlay.wire.placement import PlacementRequest
from inlay.wire.refusals import refuse_unserved
from inlay.wire.sampling import SamplingFields
from inlay.wire.structured import StructuredOutputs
from inlay.wire.tokens import DetokenizeRequest, TokenizeRequest

DEPTH_LIMIT = 32
_PATH = re.compile(r"^(?P<text>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_ENUMS = (
    (r"\.role$", "expected `system`, `developer`, `user`, `assistant` or `tool`"),
    (r"^\$\.response_format", "expected `text`, `json_object` or `json_schema`"),
    (r"^\$\.tool_choice$", "expected `none`, `auto`, `required` or a function"),
    (r"", "expected `function`"),
)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


Request = TypeVar("Request", bound=CompletionRequest | ChatRequest | TokenizeRequest | DetokenizeRequest)


def read_request(body: bytes, form: type[Request]) -> tuple[Request, tuple[str, ...]]:
    """The request in `body` and the names of its fields that were ignored.

    Raises RequestError with the field, its value and what was expected: for bytes that are no JSON object, a
    wrong type or value, and a known field that would change the tokens and is not served.
    """
    fields = _read_object(body)
    honoured = frozenset(field.encode_name for field in msgspec.structs.fields(form))
    ignored = refuse_unserved(fields, honoured=honoured)
    try:
        request = msgspec.convert(fields, form, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(error, fields) from None
    if isinstance(request, SamplingFields):
        _check_sampling(request)
    request.check()
    return request, ignored


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(f"the body is a JSON {type(value).__name__}, expected an object", code="invalid_json")
    layer: list[Any] = [value]
    for _ in range(DEPTH_LIMIT):
        layer = [inner for outer in layer for inner in _children(outer) if isinstance(inner, (dict, list))]
        if not layer:
            return value
    raise _too_deep()


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _too_deep() -> RequestError:
    return RequestError(f"the body nests deeper than {DEPTH_LIMIT} levels, expected at most {DEPTH_LIMIT}", code="invalid_json")


def _explain(error: msgspec.ValidationError, fields: dict[str, Any]) -> RequestError:
    """msgspec says what was expected and where; the value is looked up to be shown beside it."""
    match = _PATH.match(str(error))
    text, path = (match["text"], match["path"] or "$") if match else (str(error), "$")
    if text.startswith("Object missing"):
        name = text.split("`")[1]
        where = "" if path == "$" else f" in `{path[2:]}`"
        return RequestError(f"`{name}` is missing{where}, expected it to be given", param=_param(path) or name)
    if text.startswith("Object contains unknown field"):
        name = f"{path[2:]}.{text.split('`')[1]}"
        known = PlacementRequest if path.startswith("$.inlay") else StructuredOutputs
        fields_known = " or ".join(f"`{item}`" for item in known.__struct_fields__)
        return RequestError(f"`{name}` is no known field, expected {fields_known}", param=_param(path))
    value: Any = fields
    for key, index in _STEP.findall(path):
        value = value[key] if key else value[int(index)]
    wanted = text.split(", got ")[0].replace("Expected", "expected")
    if text.startswith("Invalid enum value"):
        wanted = next(wanted for pattern, wanted in _ENUMS if re.search(pattern, path))
    found = f"{value!r:.80}" if not isinstance(value, (list, dict)) else f"a {type(value).__name__} of {len(value)}"
    return RequestError(f"`{path[2:]}` is {found}, {wanted}", param=_param(path))


def _param(path: str) -> str | None:
    match = _STEP.search(path)
    return match[1] if match else None


def _check_sampling(request: SamplingFields) -> None:
    if request.stream_options is not None and not request.stream:
        raise RequestError("`stream_options` is set but `stream` is not true, expected both", param="stream_options")
    _ = request.biases
    for part in (request.response_format, request.structured_outputs):
        if part is not None:
            part.check()
    if (
        request.structured_outputs is not None
        and request.response_format is not None
        and request.response_format.type != "text"
    ):
        found = f"`response_format` is {request.response_format.type!r} and `structured_outputs` is set"
        raise RequestError(f"{found}, expected one of them", param="structured_outputs")
    budget = request.token_budget
    if request.min_tokens is not None and budget is not None and request.min_tokens > budget:
        found = f"`min_tokens` is {request.min_tokens}, expected at most `max_tokens`, which is {budget}"
        raise RequestError(found, param="min_tokens")
