"""Writes docs/reference/*.md from the code, so that the reference cannot drift from it.

`python docs/generate.py` writes the pages; with `--check` it only says which committed ones differ and exits 1.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

REFERENCE = Path(__file__).parent / "reference"
HEAD = "<!-- Written by docs/generate.py from the code. Change the code, then run `python docs/generate.py`. -->\n"
ROUTES = {
    "/v1/models": "the served model",
    "/v1/models/{name:path}": "one model by name; 404 for another",
    "/v1/completions": "continue prompts",
    "/v1/chat/completions": "continue a conversation",
    "/tokenize": "ids of a text or of messages, special tokens as generation would add them",
    "/detokenize": "the text of ids",
    "/health": "as /ready",
    "/ready": "200 when every role has a living runner, else 503 with the reason",
    "/live": "200: the gateway answers",
    "/metrics": "[meters](metrics.md) of the gateway, then those of the engine",
    "/version": "the version of inlay",
}
FIELDS = {
    "model": "name of the served model, as in `/v1/models`",
    "messages": "the conversation; content is a text or a list of text parts",
    "prompt": "a text, a list of texts, a list of token ids or a list of such lists; one text for /tokenize",
    "tokens": "token ids",
    "max_tokens": "most tokens to generate; 0 counts the prompt and generates nothing",
    "max_completion_tokens": "the same under its newer name, which wins",
    "min_tokens": "no end token before this many tokens",
    "temperature": "0 is greedy; left out: the model's own default",
    "top_p": "mass of the likeliest tokens that are kept",
    "top_k": "how many of the likeliest tokens are kept; 0 and -1 keep all",
    "n": "choices for each prompt",
    "stop": "texts before which the answer ends",
    "seed": "the same seed gives the same tokens for the same prompt",
    "stream": "server-sent events, one a piece of text",
    "stream_options": "`include_usage`: a last chunk with the usage; `continuous_usage_stats`: usage on every chunk",
    "ignore_eos": "go on after end tokens",
    "user": "accepted; changes nothing",
    "inlay": "our extension: `prefill` and `decode`, the places that must do it",
    "logprobs": "chat: true asks for log-probabilities; completions: how many of the likeliest beside the chosen one",
    "top_logprobs": "how many of the likeliest tokens beside the chosen one; needs `logprobs`",
    "echo": "the prompt in front of the text",
}


def cell(text: object) -> str:
    """One cell of a table: no line breaks, no bars."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell(item) for item in line) + " |" for line in lines) + "\n"


def paragraph(documented: object) -> str:
    """A docstring, without its indent and with its lines joined within paragraphs."""
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def kind(annotation: Any) -> str:
    """A type as a reader of JSON or YAML knows it, with the limits that the schema sets."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if annotation is Any:
        return "anything"
    if origin is typing.Annotated:
        limits = ", ".join(limit for item in arguments[1:] if isinstance(item, msgspec.Meta) for limit in bounds(item))
        return f"{kind(arguments[0])} ({limits})" if limits else kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(item) for item in arguments if item not in (type(None), msgspec.UnsetType))
    if origin is typing.Literal:
        return " or ".join(f"`{item}`" for item in arguments)
    if origin in (list, tuple):
        fixed = origin is tuple and arguments[-1] is not Ellipsis
        return "[" + ", ".join(kind(item) for item in arguments) + "]" if fixed else f"list of {kind(arguments[0])}"
    if origin is dict:
        return f"{kind(arguments[1])} by name"
    if isinstance(annotation, typing.NewType):
        return kind(annotation.__supertype__)
    names = {str: "text", bool: "true or false", int: "whole number", float: "number"}
    if annotation in names:
        return names[annotation]
    return annotation.__name__.strip("_").removesuffix("Entry") if isinstance(annotation, type) else str(annotation)


def bounds(limit: msgspec.Meta) -> list[str]:
    """The limits of one Meta, in words."""
    found = (
        ("at least ", limit.ge),
        ("above ", limit.gt),
        ("at most ", limit.le),
        ("length from ", limit.min_length),
        ("length up to ", limit.max_length),
    )
    return [f"{words}{value}" for words, value in found if value is not None]


def default(field: msgspec.structs.FieldInfo) -> str:
    """The default of a field as YAML or JSON would write it."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else cast(Callable[[], Any], field.default_factory)()
    return f"`{json.dumps(msgspec.to_builtins(value))}`"


def fields(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    """Name, type and default of every field."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return [(f"`{item.encode_name}`", kind(hints[item.name]), default(item)) for item in msgspec.structs.fields(struct)]


def command_page() -> str:
    """cli.md."""
    import typer.main

    from inlay.cli.main import app

    group = cast(Any, typer.main.get_command(app))
    parts = [f"# Commands\n\n{group.help} Data goes to stdout, everything else to stderr; an error is two lines", ""]
    parts[0] += " (`error:`, `hint:`) and an [exit code](errors.md).\n"
    for name, command in group.commands.items():
        arguments = [item for item in command.params if item.param_type_name == "argument"]
        options = [item for item in command.params if item.param_type_name == "option" and item.name != "help"]
        words = [item.name.upper() + ("..." if item.nargs == -1 else "") for item in arguments]
        usage = " ".join(["inlay", name, *words, "[OPTIONS]"])
        parts.append(f"## inlay {name}\n\n{paragraph_text(command.help)}\n\n    {usage}\n")
        rows = [(f"`{item.name.upper()}`", "", getattr(item, "help", "") or "") for item in arguments]
        rows += [(f"`{', '.join(item.opts)}`", option_default(item), item.help or "") for item in options]
        parts.append(table(("argument or option", "default", "meaning"), rows))
    return "\n".join(part for part in parts if part)


def paragraph_text(text: str | None) -> str:
    """Help text on one line."""
    return " ".join((text or "").split())


def option_default(option: Any) -> str:
    """What an option is when it is not given; one that may be given several times says so."""
    if option.multiple:
        return "may be given several times"
    return "" if option.default in (None, False) else f"`{option.default}`"


def http_page() -> str:
    """http.md."""
    from inlay.gateway import Limits, make_app
    from inlay.wire import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
    from inlay.wire.placement import PlacementRequest, Served
    from inlay.wire.refusals import _NEUTRAL

    routes = [cast(Any, route) for route in make_app(cast(Any, None)).routes]
    rows = [(f"`{item.path}`", " ".join(sorted(item.methods)), ROUTES[item.path]) for item in routes]
    parts = ["# HTTP\n\nThe served part of OpenAI's API, with `/tokenize` and `/detokenize` as vLLM spells them.\n"]
    parts.append(table(("path", "methods", "what"), rows))
    parts.append("A field that is not required may be null, which is the same as leaving it out.\n")
    titles = {
        "POST /v1/chat/completions": ChatRequest,
        "POST /v1/completions": CompletionRequest,
        "POST /tokenize": TokenizeRequest,
        "POST /detokenize": DetokenizeRequest,
    }
    for title, struct in titles.items():
        described = [(*row[:2], FIELDS[row[0].strip("`")], "yes" if row[2] == "required" else "") for row in fields(struct)]
        parts.append(f"## {title}\n\n{paragraph(struct)}\n\n" + table(("field", "type", "meaning", "required"), described))
    for title, placed in (("Request field `inlay`", PlacementRequest), ("Reply field `inlay`", Served)):
        parts.append(f"## {title}\n\n{paragraph(placed)}\n\n" + table(("field", "type", "default"), fields(placed)))
    refused = [(f"`{name}`", ", ".join(f"`{json.dumps(v)}`" for v in (None, *values))) for name, values in _NEUTRAL.items()]
    parts.append("## Refused fields\n\nThey would change the tokens and are not served: any other value is answered with 400,")
    parts.append("code `unsupported_parameter`. `best_of` may only repeat `n`. A field that is in no list of this page is")
    parts.append("ignored; the response header `x-inlay-ignored` names it.\n")
    parts.append(table(("field", "values that are accepted, since they change nothing"), refused))
    caps = [(f"`{name}`", f"{getattr(Limits(), name):,}", text) for name, text in attribute_docs(Limits).items()]
    parts.append("## Limits\n\n" + table(("limit", "value", "meaning"), caps))
    return "\n".join(parts)


def attribute_docs(owner: type) -> dict[str, str]:
    """The strings that follow the attributes of a class, by attribute."""
    body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
    found = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[cast(ast.Name, before.target).id] = str(after.value.value)
    return found


def file_page() -> str:
    """files.md."""
    from inlay.hardware import cluster, cluster_file
    from inlay.specs import deployment
    from inlay.specs.precision import DTYPES, Precision

    sections = [
        ("cluster.yaml", None, cluster_file._ClusterEntry, "##"),
        ("a node", cluster.Node, cluster_file._NodeEntry, "###"),
        ("a device", cluster.Device, cluster_file._DeviceEntry, "###"),
        ("a link", cluster.Link, cluster_file._LinkEntry, "###"),
        ("a chip", cluster.Chip, cluster_file._ChipEntry, "###"),
        ("a memory of a chip", cluster.Memory, cluster_file._MemoryEntry, "###"),
        ("deployment.yaml", deployment.Deployment, deployment._DeploymentEntry, "##"),
        ("a role", deployment.Role, deployment.Role, "###"),
        ("a region", deployment.RegionPlacement, deployment.RegionPlacement, "###"),
        ("precision", Precision, Precision, "###"),
        ("parallel", deployment.Parallel, deployment.Parallel, "###"),
        ("a file reference", deployment.FileReference, deployment.FileReference, "###"),
    ]
    parts = [
        "# Files\n\nBoth files are YAML, read strictly: an unknown key, a key given twice and a wrong type are errors that"
    ]
    parts.append("name the place, the value and the known keys. Sizes are numbers of bytes or texts such as `16 GiB`;")
    parts.append("bandwidths such as `25 GB/s`; latencies such as `20 us`.\n")
    for title, described, struct, level in sections:
        text = paragraph(described) if described is not None else paragraph(cluster_file)
        parts.append(f"{level} {title}\n\n{text}\n\n" + table(("key", "type", "default"), fields(struct)))
    parts.append(f"Roles are {', '.join(f'`{name}`' for name in deployment.ROLES)}; a precision is one of")
    parts.append(f"{', '.join(f'`{name}`' for name in DTYPES)}. What is written here and not yet done is refused by name.\n")
    return "\n".join(parts)


def error_page() -> str:
    """errors.md."""
    from inlay import errors

    pending: list[type[errors.InlayError]] = [errors.InlayError]
    rows = []
    while pending:
        item = pending.pop(0)
        rows.append((f"`{item.__name__}`", item.exit_code, f"`{item.code}`", paragraph(item)))
        pending = [*item.__subclasses__(), *pending]
    tree = inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2]
    return (
        "# Errors\n\nEvery failure a user can meet is one of these. A message names the thing, its value and what was\n"
        "expected; the hint says what to do. The exit code is that of the `inlay` command; over HTTP the code stands in\n"
        "`error.code` (a refused request often has a finer one there).\n\n"
        f"```text\n{tree}\n```\n\n" + table(("error", "exit code", "code", "meaning"), rows)
    )


def meter_page() -> str:
    """metrics.md."""
    from prometheus_client.metrics import MetricWrapperBase

    from inlay.telemetry import EngineMeters, GatewayMeters

    parts = ["# Metrics\n\n`GET /metrics`, Prometheus text format. Seconds and bytes are base units; labels are bounded: no\n"
             "request, session or text chosen by a client is ever a label.\n"]  # fmt: skip
    for title, owner in (("Engine", EngineMeters()), ("Gateway", GatewayMeters())):
        rows = []
        for item in vars(owner).values():
            if isinstance(item, MetricWrapperBase):
                name = item._name + ("_total" if item._type == "counter" else "")
                rows.append((f"`{name}`", item._type, ", ".join(item._labelnames), item._documentation))
        parts.append(f"## {title}\n\n{paragraph(owner)}\n\n" + table(("name", "type", "labels", "meaning"), rows))
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": command_page,
    "http.md": http_page,
    "files.md": file_page,
    "errors.md": error_page,
    "metrics.md": meter_page,
}


def stale_pages() -> list[str]:
    """Names of the pages whose committed text is not what the code gives."""
    wanted = {name: HEAD + make() for name, make in PAGES.items()}
    return [name for name, text in wanted.items() if read(REFERENCE / name) != text]


def read(path: Path) -> str:
    """The text of a file, nothing where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def main(arguments: Sequence[str]) -> int:
    """Write or check; the exit status."""
    if "--check" in arguments:
        stale = stale_pages()
        for name in stale:
            sys.stdout.write(f"docs/reference/{name} differs from the code; run: python docs/generate.py\n")
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(HEAD + make(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
