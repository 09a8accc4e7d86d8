"""A small client of any OpenAI-compatible endpoint, over the standard library: one streamed question."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from inlay.errors import RequestError

DATA = b"data: "


def stream_chat(
    url: str,
    *,
    model: str,
    question: str,
    key: str | None = None,
    seconds: float = 120.0,
    served: Callable[[dict[str, Any]], None] = lambda fact: None,
) -> Iterator[str]:
    """Text of the answer to one user message as it arrives; `served` is told what an endpoint of ours says of how it was
    served (field `inlay`). Raises RequestError with the endpoint's own words."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=seconds)
    body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request("POST", f"{parts.path}/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RequestError(
                f"{url} answered {answer.status}: {answer.read(4096).decode(errors='replace')}", status=answer.status
            )
        for line in answer:
            if line.startswith(DATA) and line.strip() != b"data: [DONE]":
                chunk = json.loads(line[len(DATA) :])
                if isinstance(fact := chunk.get("inlay"), dict):
                    served(fact)
                yield from _texts(chunk)
    except OSError as error:
        raise RequestError(f"{url} cannot be reached: {error}", status=503) from error
    finally:
        connection.close()


def _texts(chunk: dict[str, object]) -> Iterator[str]:
    """The text of one chunk; an error chunk is raised."""
    if "error" in chunk:
        raise RequestError(f"the endpoint broke off: {json.dumps(chunk['error'])}", status=503)
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        text = choice.get("delta", {}).get("content")
        if text:
            yield text
