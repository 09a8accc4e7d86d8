"""One session that holds regions which stand in for one another: any assignment of blocks gives what the reference gives."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from compiling import build, captured, two_devices

from inlay import api
from inlay.errors import InputError
from inlay.hardware import Place
from inlay.runtime.store import read_program

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: its own `serving` is another

from alternatives import Alternatives, regions_of

PLACES = (Place("cpu:0", "contrary"), Place("cpu:1", "onnxruntime"))


def test_any_assignment_gives_what_the_reference_gives(tmp_path) -> None:
    model = captured("tied_ends")
    blocks = len(read_program(model.folder).cut.blocks)
    world = Alternatives(model, PLACES, two_devices())
    rng = random.Random(3)
    found = [tuple(place for _ in range(blocks)) for place in PLACES]
    found += [tuple(rng.choices(PLACES, k=blocks)) for _ in range(12)]
    assert len({place for item in found for place in item}) == len(PLACES)
    target = build(model, tmp_path / "build", [(0, blocks, "cpu:0", "reference")])
    with api.load(target, cluster=two_devices()) as opened:
        wanted = opened.run(world.inputs)
    with world.open() as session:
        for item in found:
            order = world.order(item)
            assert order is not None and len(order) == len(regions_of(item)), world.refused
            outcome = session.run(world.inputs, order=order)
            assert set(outcome.regions) == set(order)
            for name, value in zip(model.program.outputs, wanted.values(), strict=True):
                np.testing.assert_allclose(outcome.values[name], value, rtol=2e-4, atol=2e-5)


def test_results_that_differ_between_assignments_end_the_measuring() -> None:
    model = captured("tied_ends")
    world = Alternatives(model, PLACES[1:2], two_devices())
    order = world.order((PLACES[1],) * len(read_program(model.folder).cut.blocks))
    assert order is not None
    with world.open() as session:
        assert world.run(session, order) > 0
        world.inputs = {name: np.roll(array, 1, axis=-1) for name, array in world.inputs.items()}
        with pytest.raises(SystemExit, match="than the first plan"):
            world.run(session, order)
        with pytest.raises(InputError, match="region 'nowhere' is not there, expected: 0-0 "):
            session.run(world.inputs, order=("nowhere",))
