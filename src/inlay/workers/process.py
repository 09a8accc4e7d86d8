"""Starts one process and holds it: pid, end, log, stop. Any program by name; when to start one is decided elsewhere."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from inlay.errors import DeviceLostError, InputError
from inlay.workers.spec import Start, WorkerSpec

TAIL_LINES = 20
_TAIL_BYTES = 64 * 1024
_ENTRY = "inlay.workers.entry"


class Worker:
    """One process that `start` made. Its whole process group ends with it. Not safe to use from two threads at once,
    except that `stop` may run in a thread while nothing else is called.
    """

    def __init__(self, spec: WorkerSpec, process: subprocess.Popen[bytes], *, log_start: int) -> None:
        self.spec = spec
        self.pid = process.pid
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._log_start = log_start
        self._closed = False

    def __repr__(self) -> str:
        return f"Worker(name={self.spec.name!r}, pid={self.pid}, exit_status={self._process.returncode})"

    def fileno(self) -> int:
        """A pidfd: it becomes readable when the process ends, and stays so until `close`."""
        return self._pidfd

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.exit_status() is None

    def exit_status(self) -> int | None:
        """None while it runs; then its exit code, or minus the number of the signal that ended it."""
        if self._process.returncode is None and self._ended(0.0):
            # Not reaped yet, so the process group's number cannot belong to others: end what it left behind.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        return self._process.returncode

    def check(self) -> None:
        """Raises DeviceLostError, with the end of the log, when the process has ended."""
        if not self.alive():
            raise self.lost()

    def lost(self) -> DeviceLostError:
        """The error that says how the process ended and what it said last."""
        status = self.exit_status()
        if status is None:
            end = "does not answer"
        elif status < 0:
            end = f"was ended by signal {-status} ({signal.Signals(-status).name})"
        else:
            end = f"ended with status {status}"
        if self.spec.python != sys.executable:
            end += f" under {self.spec.python}"
        tail = self.log_tail()
        said = f"; its last lines:\n{tail}" if tail else " and said nothing"
        return DeviceLostError(f"process `{self.spec.name}` (pid {self.pid}) {end}{said}", hint=f"see {self.spec.log_path}")

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines that this process wrote to stdout and stderr."""
        try:
            with self.spec.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read(_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def terminate(self) -> None:
        """Ask it to end (SIGTERM) and return at once; for a supervisor that waits on `fileno` itself."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it now (SIGKILL) and return at once."""
        self._send(signal.SIGKILL)

    def stop(self, grace_seconds: float = 5.0) -> int:
        """End it: SIGTERM, at most `grace_seconds`, SIGKILL; returns the exit status. Blocks; safe to call twice."""
        return stop_all([self], grace_seconds)[0]

    def close(self) -> None:
        """Give the descriptor back; the process must have ended (`stop` does both). Safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._pidfd)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def start(spec: WorkerSpec, *, pass_descriptors: Sequence[int] = ()) -> Worker:
    """Start the process of `spec` and return at once; that it works is seen later (`check`, its handshake, its beats).

    The child is ended by the kernel when the calling THREAD ends, so call it from one that lives as long as the
    supervisor. `pass_descriptors` stay open in the child under the same numbers. Raises InputError.
    """
    if spec.threads < 1:
        raise InputError(f"process `{spec.name}` has {spec.threads} threads, expected at least 1")
    stdin = _sealed_input(spec)
    try:
        log_path = Path(spec.log_path)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            log_start = os.fstat(log).st_size
            process = subprocess.Popen(
                # -P: a file of the current folder must not shadow a framework. The name is for `ps`.
                [spec.python, "-P", "-m", _ENTRY, spec.name],
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(spec),
                start_new_session=True,
                pass_fds=tuple(pass_descriptors),
            )
        finally:
            os.close(log)
    except OSError as error:
        message = f"process `{spec.name}` cannot be started with {spec.python} and log {spec.log_path}: {error}"
        raise InputError(message, hint="check the interpreter and that the run directory is writable") from error
    finally:
        os.close(stdin)
    return Worker(spec, process, log_start=log_start)


def stop_all(workers: Sequence[Worker], grace_seconds: float = 5.0) -> list[int]:
    """End several processes within one grace period; their exit statuses in order. Blocks; closes the workers."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + grace_seconds
    statuses = []
    for worker in workers:
        if worker._process.returncode is None and not worker._ended(max(0.0, deadline - time.monotonic())):
            worker.kill()
            worker._ended(60.0)
        status = worker.exit_status()
        if status is None:
            raise DeviceLostError(f"process `{worker.spec.name}` (pid {worker.pid}) cannot be killed", hint="see `ps`: state D")
        worker.close()
        statuses.append(status)
    return statuses


def _sealed_input(spec: WorkerSpec) -> int:
    """The configuration as an anonymous file for the child's stdin: never blocks, in no list of processes, no disk."""
    message = Start(supervisor=os.getpid(), name=spec.name, program=spec.program, cores=spec.cores, config=spec.config)
    try:
        data = msgspec.msgpack.encode(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"configuration of process `{spec.name}` is not plain data: {error}") from error
    descriptor = os.memfd_create("inlay-config", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _environment(spec: WorkerSpec) -> dict[str, str]:
    """Set before the process starts, because numeric libraries read it when they are loaded."""
    threads = str(spec.threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
        "OMP_PROC_BIND": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        **spec.environment,
    }
