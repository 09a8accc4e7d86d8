"""An OpenAI-compatible server that computes nothing: each stream's chunks come at planted times. For measuring clients.

    python benchmarks/null_server.py [--first SECONDS] [--gap SECONDS]

It prints its URL. Every answer has `max_tokens` chunks of one token: the first after `first`, each next `gap` later, on
a grid of the stream's own, so that lateness does not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import httptools

CHUNK = b'data: {"id":"x","object":"text_completion","choices":[{"index":0,"text":" word","finish_reason":null}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def coded(data: bytes) -> bytes:
    """In HTTP's chunked coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


PIECE = coded(CHUNK)


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, first: float, gap: float) -> None:
        self._first, self._gap = first, gap
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of requests."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """httptools: what is asked."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """httptools: answer."""
        if self._url.startswith(b"/v1/models"):
            self._page(b'{"object":"list","data":[{"id":"null","max_model_len":1000000}]}')
        elif self._url in (b"/v1/completions", b"/v1/chat/completions"):
            count = json.loads(self._body)["max_tokens"]
            self._begin = asyncio.get_running_loop().time() + self._first
            self._send(0, count)
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _page(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    def _send(self, number: int, count: int) -> None:
        if number > 0:
            piece = PIECE if number < count else PIECE + end(count)
            self._transport.write(HEAD + piece if number == 1 else piece)
        if number < count and not self._transport.is_closing():
            asyncio.get_running_loop().call_at(self._begin + self._gap * number, self._send, number + 1, count)


def end(count: int) -> bytes:
    """The last chunk, with the usage."""
    usage = {"prompt_tokens": 8, "completion_tokens": count, "total_tokens": 8 + count}
    return coded(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"


async def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=float, default=0.0)
    parser.add_argument("--gap", type=float, default=0.01)
    given = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(lambda: Stream(given.first, given.gap), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
