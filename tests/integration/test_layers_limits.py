"""A model cut by layers at its limits: two devices of too little memory each, and a process that dies."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
import zoo
from asking import ask_all
from serving import deployment, running, tokens_of
from truth import continuations, load, prompts

from inlay import api
from inlay.client import EngineClient
from inlay.errors import DeploymentError, DeviceLostError
from inlay.hardware import load_cluster
from inlay.models import read_model, read_tokenizer
from inlay.orchestrator import Running, local
from inlay.orchestrator.fitting import region_memory
from inlay.specs.deployment import Deployment, deployment_from_roles
from inlay.specs.generation import GenerationParameters, Placement

CUT = "prefill,decode=cpu:0/openvino@0-2+cpu:1/contrary@3-5"
LONG = GenerationParameters(max_tokens=100, temperature=0.0, ignore_eos=True)


def cluster_file(folder: Path, *memory: int) -> Path:
    """A cluster file that states the memory of each device."""
    cores = sorted(os.sched_getaffinity(0))
    devices = {
        f"cpu:{index}": {"node": "local", "cores": [cores[index % len(cores)]], "memory": size}
        for index, size in enumerate(memory)
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"nodes": {"local": {"zone": "here"}}, "devices": devices}))
    return path


def planned(cluster: Path, role: str) -> Deployment:
    sizes = {"context": 512, "slots": 8, "chunk": 32, "capacities": (128, 512), "depth": 6}
    return deployment_from_roles(str(zoo.DEMO_TARGET), load_cluster(cluster), [role], **sizes)  # type: ignore[arg-type]


def needs(folder: Path, role: str) -> list[int]:
    """Bytes that the regions of a role need."""
    found = planned(cluster_file(folder, 1 << 40, 1 << 40), role)
    spec = read_model(zoo.DEMO_TARGET)
    return [region_memory(found, region, spec).total for region in found.roles[0].regions]


def test_a_model_that_fits_neither_device_alone_is_served_by_both_and_contrary_holds_itself_to_its_memory(tmp_path) -> None:
    [whole] = needs(tmp_path, "prefill,decode=cpu:0/openvino")
    limits = [round(1.02 * size) for size in needs(tmp_path, CUT)]
    assert max(limits) < 0.8 * whole
    cluster = cluster_file(tmp_path, *limits)
    for place in ("cpu:0/openvino", "cpu:1/contrary"):
        with pytest.raises(DeploymentError, match=rf"^{place} needs .* but {place.partition('/')[0]} has"):
            api.start(planned(cluster, f"prefill,decode={place}"))
    given = prompts(8, vocabulary=4096, seed=23, longest=200)
    truths = continuations(load(zoo.DEMO_TARGET), given, new_tokens=12)
    token_text = read_tokenizer(zoo.DEMO_TARGET).token_text
    with running(planned(cluster, CUT)) as it:
        url = api.open_gateway(it, host="127.0.0.1", port=0)
        answers = ask_all(url, "target", [(prompt, None, None) for prompt in given], new_tokens=12)
    assert [item.tokens for item in answers] == [tuple(map(token_text, truth.tokens)) for truth in truths]


def test_contrary_refuses_more_than_its_devices_memory_even_where_the_plan_let_it_pass(tmp_path, monkeypatch) -> None:
    first, second = needs(tmp_path, CUT)
    cluster = cluster_file(tmp_path, 2 * first, second // 2)
    with pytest.raises(DeploymentError, match="cpu:1/contrary needs"):
        api.start(planned(cluster, CUT))
    monkeypatch.setattr(local, "check_memory", lambda wanted, spec, **_: None)
    with pytest.raises(DeviceLostError, match=rf"contrary device has {second // 2} bytes"):
        api.start(planned(cluster, CUT))


@pytest.fixture
def split() -> Iterator[Running]:
    wanted = deployment(
        zoo.DEMO_TARGET,
        ["openvino", "onnxruntime", "onnxruntime"],
        roles=["prefill=cpu:2/onnxruntime", "prefill,decode=cpu:0/openvino@0-2+cpu:1/onnxruntime@3-5"],
        chunk=32,
    )
    with running(wanted) as it:
        yield it


RUNNER = "cpu:0/openvino+cpu:1/onnxruntime"


async def ends_of(it: Running, given: list[tuple[int, ...]], *, seconds: float) -> list[object]:
    """How each request ends: its tokens, or its failure; a request that does not end in time is a TimeoutError."""
    async with EngineClient(it.engine_socket, key=it.key, silence_seconds=120.0) as client:
        calls = [
            asyncio.wait_for(tokens_of(client, prompt, Placement(prefill=prefill), LONG), seconds)
            for prompt in given
            for prefill in ("cpu:2/onnxruntime", RUNNER, None)
        ]
        return list(await asyncio.gather(*calls, return_exceptions=True))


@pytest.mark.parametrize("victim", ["cpu:0/openvino", "cpu:1/onnxruntime"])
def test_a_killed_process_of_a_runner_ends_its_requests_turns_ready_false_and_nothing_hangs(split, victim) -> None:
    url = api.open_gateway(split, host="127.0.0.1", port=0)
    assert status(url, "/ready") == 200
    given = prompts(10, vocabulary=4096, seed=24, shortest=200)
    killer = threading.Timer(1.0, lambda: os.kill(split.workers[victim].pid, signal.SIGKILL))
    killer.start()
    ends = asyncio.run(ends_of(split, given, seconds=30.0))
    killer.join()
    failures = [str(item) for item in ends if isinstance(item, BaseException)]
    assert failures and all("device_lost" in item or "no_runner" in item for item in failures), failures
    assert all(len(item) == LONG.max_tokens for item in ends if isinstance(item, list))
    assert status(url, "/ready") == 503 and status(url, "/live") == 200
    found = api.describe(split)
    assert not found.ready and {item.place: item.alive for item in found.runners} == {RUNNER: False, "cpu:2/onnxruntime": True}
    other = next(place for place in RUNNER.split("+") if place != victim)
    deadline = time.monotonic() + 10  # its neighbour is of no use without it, and ends
    while split.workers[other].alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not split.workers[other].alive() and split.workers["cpu:2/onnxruntime"].alive()
    refused = json.loads(post(url, {"model": "target", "prompt": "import", "max_tokens": 4}))
    assert refused["error"]["code"] == "no_runner"


def status(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path)
    found = connection.getresponse().status
    connection.close()
    return found


def post(url: str, body: dict[str, object]) -> str:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer
