"""What is known of the agent whose events are read: it decides what an absent environment means."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """Facts about one connection to an agent, or about the agent that a recording was taken from.

    `captures_environment` is None while nobody has said: agents before 1.7 have no GetInfo and no capture either.
    """

    version: str = ""
    """As GetVersion says it, for example `v1.7.0`; empty when unknown."""
    captures_environment: bool | None = None
    environment_filter: tuple[str, ...] = ()
    """Exact names that the agent lets through (`--filter-environment-variables`); empty means all."""
    captures_credentials: bool | None = None
    """Whether exec events carry credentials and binary properties (`--enable-process-cred`)."""
