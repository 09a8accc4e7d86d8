"""Run pieces of a program one after another in one process: buffers bound once for each set of sizes, zero copy where the
frameworks share memory, copied where one has memory of its own. Used by device processes, measurements and the SDK.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inlay.backends import Array, Buffer, Executable, HostBuffer
from inlay.errors import DeviceError, InputError
from inlay.graph import State, shape_value

ARRANGEMENTS = 8
"""So many different sizes keep their buffers; the one not used for longest is dropped."""


@dataclass(frozen=True, slots=True)
class LoadedPiece:
    """A piece's executable and the values that pass its ports, in port order."""

    name: str
    executable: Executable
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(slots=True)
class Arrangement:
    """Buffers of one set of sizes: where each value lives, what each piece binds, and copies needed before and after each."""

    sizes: dict[str, int]
    homes: dict[str, Buffer] = field(default_factory=dict)
    bound: list[list[Buffer]] = field(default_factory=list)
    copies: list[list[tuple[Buffer, Buffer]]] = field(default_factory=list)
    gives: list[list[tuple[Buffer, Buffer]]] = field(default_factory=list)


class Stitched:
    """Pieces in the order they run. `close` frees the executables. Not thread-safe.

    `initial` gives first values of states by their names; others begin at zero. Pieces that give the same value are
    alternatives, of which a run takes one: `run` says which pieces.

    Sizes: first `arrange`, then `write` what comes from outside, `run` pieces, `read` what they gave.
    """

    def __init__(
        self, pieces: Sequence[LoadedPiece], *, states: Sequence[State] = (), initial: Mapping[str, Array] | None = None
    ) -> None:
        self.pieces = tuple(pieces)
        self._initial = dict(initial or {})
        touched = {name for piece in pieces for name in (*piece.inputs, *piece.outputs)}
        self._states = [state for state in states if state.input in touched and state.output in touched]
        self._arrangements: OrderedDict[tuple[tuple[str, int], ...], Arrangement] = OrderedDict()
        self._current: Arrangement | None = None

    @property
    def boundary_copies(self) -> int:
        """How many values are copied between pieces in one run, because two frameworks do not share memory."""
        return 0 if self._current is None else sum(len(item) for item in self._current.copies)

    def arrange(self, sizes: Mapping[str, int]) -> None:
        """Have the buffers of these sizes bound. Raises UnsupportedError or OutOfMemoryError as the backends do."""
        key = tuple(sorted(sizes.items()))
        before, found = self._current, self._arrangements.get(key)
        if found is None:
            found = self._arrangements[key] = self._make(dict(sizes))
            while len(self._arrangements) > ARRANGEMENTS:
                self._arrangements.popitem(last=False)
        self._arrangements.move_to_end(key)
        if found is before:
            return
        for piece, buffers in zip(self.pieces, found.bound, strict=True):
            for port, buffer in enumerate(buffers):
                piece.executable.bind(port, buffer)
        for state in self._states:
            if before is None and state.name in self._initial:
                found.homes[state.input].write(self._initial[state.name])
            elif before is not None:
                found.homes[state.input].write(_look(before.homes[state.input]))
        self._current = found

    def write(self, name: str, array: Array) -> None:
        """Give a value that comes from outside. Raises InputError where its shape is not that of the sizes."""
        buffer = self._arranged().homes.get(name)
        if buffer is None:
            return  # nobody here reads it
        if tuple(array.shape) != buffer.shape or array.dtype.name != buffer.dtype:
            raise InputError(
                f"value {name!r} is {array.dtype.name} {list(array.shape)}, expected {buffer.dtype} {list(buffer.shape)}",
                hint="cast it, or run with sizes that fit it",
            )
        buffer.write(array)

    def read(self, name: str) -> Array:
        """A fresh copy of a value."""
        return self._arranged().homes[name].read()

    def look(self, name: str) -> Array:
        """A value as it is now: where its memory is the host's, that memory itself, which the next run changes."""
        return _look(self._arranged().homes[name])

    def run(self, first: int = 0, end: int | None = None) -> None:
        """Run these pieces, all by default, and keep the states that they changed. Raises DeviceError naming the piece."""
        arrangement = self._arranged()
        for index in range(first, len(self.pieces) if end is None else end):
            for source, target in arrangement.copies[index]:
                target.write(_look(source))
            self.pieces[index].executable.run(arrangement.sizes)
            for source, target in arrangement.gives[index]:
                target.write(_look(source))
        if end is None or end == len(self.pieces):
            for state in self._states:
                arrangement.homes[state.input].write(_look(arrangement.homes[state.output]))

    def close(self) -> None:
        """Free everything; safe to call twice."""
        self._arrangements.clear()
        self._current = None
        for piece in self.pieces:
            piece.executable.close()

    def _arranged(self) -> Arrangement:
        if self._current is None:
            raise DeviceError("pieces are run before their buffers are arranged", hint="call arrange with the sizes first")
        return self._current

    def _make(self, sizes: dict[str, int]) -> Arrangement:
        made = Arrangement(sizes)
        for piece in self.pieces:
            executable, buffers = piece.executable, list[Buffer]()
            copies: list[tuple[Buffer, Buffer]] = []
            gives: list[tuple[Buffer, Buffer]] = []
            for port, name in enumerate((*piece.inputs, *piece.outputs)):
                spec = (*executable.inputs, *executable.outputs)[port]
                home = made.homes.get(name)
                if home is not None and _shares(executable, port, home):
                    buffers.append(home)
                    continue
                own = executable.allocate(port, shape_value(spec.shape, sizes))
                if home is None:
                    made.homes[name] = own
                elif port < len(piece.inputs):
                    copies.append((home, own))
                else:
                    gives.append((own, home))
                buffers.append(own)
            made.bound.append(buffers)
            made.copies.append(copies)
            made.gives.append(gives)
        return made


def _look(buffer: Buffer) -> Array:
    """What a buffer holds, copied only where it is not in the host's memory."""
    return buffer.array if isinstance(buffer, HostBuffer) else buffer.read()


def _shares(executable: Executable, port: int, buffer: Buffer) -> bool:
    """Whether an executable can bind a buffer that another one allocated."""
    try:
        executable.bind(port, buffer)
    except DeviceError:
        return False
    return True
