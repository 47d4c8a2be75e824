"""What settings let a user choose between, in the user's words."""

from enum import StrEnum


class Output(StrEnum):
    """What is made of each event."""

    JSON = "json"
    LINE = "line"
    FINDINGS = "findings"
    OTLP = "otlp"


class OtlpRecords(StrEnum):
    """What goes to the OTLP backend."""

    FINDINGS = "findings"
    EVENTS = "events"


class Reader(StrEnum):
    """Who reads the agent's stream."""

    AUTO = "auto"
    HTTP2 = "http2"
    GRPCIO = "grpcio"


class Choice(StrEnum):
    """Whether to do what the surroundings may decide. Not on and off, which YAML reads as true and false."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Peers(StrEnum):
    """Whose addresses in the cluster are watched."""

    NONE = "none"
    SERVICES = "services"
    ALL = "all"


class LogLevel(StrEnum):
    """The least important of Keytrail's own log records that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How Keytrail's own log records are written."""

    TEXT = "text"
    JSON = "json"
