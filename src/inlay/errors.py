"""The error tree: every failure a user can meet, each with the value, what was expected and a hint.

InlayError
|-- InputError            what the user gave is wrong (exit code 2)
|   |-- ModelError        a model folder, its weights, tokenizer or template
|   |-- ClusterError      a cluster file or a device name
|   |-- DeploymentError   a deployment file or a role
|   |-- PartitionError    a partition file, an edited plan or a pin
|   `-- RequestError      one request; the service goes on
|-- UnsupportedError      a known thing that this backend or version does not do (exit code 3)
|-- ArtifactError         a lowered artifact or a cached weight that cannot be used (exit code 4)
|-- DeviceError           a device process or its framework failed (exit code 5)
|   |-- DeviceLostError   the process ended or stopped answering
|   `-- OutOfMemoryError  the device cannot hold what was asked
`-- TransferError         KV pages or frames that fail a check; never fatal, the reader recomputes (exit code 6)
"""

from __future__ import annotations


class InlayError(Exception):
    """Root of the tree. `message` names the thing, its value and what was expected; `hint` says what to do."""

    exit_code = 1
    code = "internal_error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class InputError(InlayError):
    """What the user gave cannot be used."""

    exit_code = 2
    code = "invalid_input"


class ModelError(InputError):
    """A model folder that cannot be served."""

    code = "invalid_model"


class ClusterError(InputError):
    """A cluster file or a device name that does not describe hardware."""

    code = "invalid_cluster"


class DeploymentError(InputError):
    """A deployment file or a role that cannot be made true."""

    code = "invalid_deployment"


class PartitionError(InputError):
    """A partition, or a pin for one, that cannot be carried out."""

    code = "invalid_partition"


class RequestError(InputError):
    """One request that cannot be served; `param` is the field at fault, `status` the HTTP status."""

    code = "invalid_request"

    def __init__(
        self, message: str, *, hint: str | None = None, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param
        self.status = status
        if code is not None:
            self.code = code


class UnsupportedError(InlayError):
    """A known thing that is not done here, by name and with the reason."""

    exit_code = 3
    code = "unsupported"


class ArtifactError(InlayError):
    """A lowered artifact or a cached weight that is damaged, foreign or out of date."""

    exit_code = 4
    code = "artifact_unusable"


class DeviceError(InlayError):
    """A device process or its framework failed."""

    exit_code = 5
    code = "device_failed"


class DeviceLostError(DeviceError):
    """A device process ended or stopped answering."""

    code = "device_lost"


class OutOfMemoryError(DeviceError):
    """A device cannot hold what was asked of it."""

    code = "out_of_memory"


class TransferError(InlayError):
    """Bytes between processes that fail a check: checksum, epoch, binding, size or deadline."""

    exit_code = 6
    code = "transfer_failed"

    def __init__(self, message: str, *, cause: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


def error_class(code: str) -> type[InlayError]:
    """The class of the tree with this code that a message and a hint make, for errors that come from other processes."""
    pending: list[type[InlayError]] = [InlayError]
    while pending:
        item = pending.pop()
        if item.code == code and item.__init__ is InlayError.__init__:
            return item
        pending += item.__subclasses__()
    return InlayError
