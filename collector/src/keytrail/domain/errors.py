"""Every error that Keytrail raises on purpose.

KeytrailError
├── UsageError            what the user gave is wrong: exit code 2, nothing was started
│   ├── SettingsError     a setting, from a file, the environment or a flag
│   ├── ManifestError     a manifest; knows file, line and field
│   └── SpoolBusyError    another process works with the spool's folder (in export/spool/owner)
├── SourceError           where events come from
│   ├── AgentError        the agent refused, failed or is not there; carries the gRPC status
│   └── RecordingError    a recording is missing, truncated or not one
├── ExportError           the backend or an output file
└── KubeError             the API server of Kubernetes
    ├── KubeUnreachableError  no answer, or none that settles it: worth another try
    ├── KubeForbiddenError    not let in, or not allowed to
    ├── KubeNotFoundError     no such object, or no such kind
    ├── KubeConflictError     somebody else was quicker
    ├── KubeGoneError         what was asked about is history that is no longer kept
    └── KubeInvalidError      the request or the object in it is refused
"""

from dataclasses import dataclass


class KeytrailError(Exception):
    """The root: whatever is raised on purpose can be caught as this."""

    exit_code = 1


class UsageError(KeytrailError):
    """What the user gave is wrong; nothing was started."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, malformed or contradicts another."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a manifest or settings file, said so that its reader can mend it."""

    path: str
    """The file as the user named it; `<api server>` or `<environment>` for other origins."""
    line: int
    """1-based; 0 when the origin has no lines."""
    field: str
    """Dotted path, for example `spec.evidence.env[0].name`; empty for the whole document."""
    message: str

    def __str__(self) -> str:
        """`FILE:LINE: FIELD: MESSAGE`, the form that editors and CI systems link."""
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


class ManifestError(UsageError):
    """One or more manifests are wrong; `problems` holds all of them, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type["ManifestError"], tuple[list[Problem]]]:
        """Made of its problems again in another process, not of its text."""
        return type(self), (self.problems,)


class SourceError(KeytrailError):
    """Events cannot be had from where they were asked for."""


class AgentError(SourceError):
    """The agent refused or failed a call, or is away. `status` is the gRPC status name, such as UNAVAILABLE."""

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status


class RecordingError(SourceError):
    """A recording is missing, truncated, damaged or not a recording."""


class ExportError(KeytrailError):
    """A record could not be written or sent."""


class KubeError(KeytrailError):
    """The API server did not do what it was asked to do. The message is for a person."""


class KubeUnreachableError(KubeError):
    """No answer, or one that asks to come again: `retry_after` seconds, where it says when."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KubeForbiddenError(KubeError):
    """Not let in, or not allowed to: the message names verb and resource."""


class KubeNotFoundError(KubeError):
    """There is no such object, or the API server does not know the kind."""


class KubeConflictError(KubeError):
    """The object was changed, or created, by somebody else in the meantime."""


class KubeGoneError(KubeError):
    """The version that was asked about is no longer kept: list again."""


class KubeInvalidError(KubeError):
    """The API server refuses the request, or the object in it."""
