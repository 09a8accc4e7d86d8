"""OpenAI-compatible HTTP over the Upstream seam; knows neither models nor the orchestrator.

One request: app.py reads and checks the body (wire), requests.py turns it into engine calls, calls.py follows
them, forms.py and tally.py give them OpenAI's shape, answer.py writes it and watches whether the client is there.
"""

from __future__ import annotations

from inlay.gateway.app import make_app
from inlay.gateway.keys import KeyRing
from inlay.gateway.limits import Limits
from inlay.gateway.server import bind_socket, run_http, serve_http
from inlay.gateway.upstream import Event, Upstream

__all__ = ["Event", "KeyRing", "Limits", "Upstream", "bind_socket", "make_app", "run_http", "serve_http"]
