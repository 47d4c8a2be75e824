"""What a Pod's spec gives to one container: variables from Secrets, and the credentials that are mounted as files.

Made by `pod_facts` from the API's objects, used by `keytrail.identify`. Holds names of Secrets, keys, variables and
paths; no Secret is ever read, so what it holds is what the spec says, not what the Secret has.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a Secret; `key` is empty where the spec names the Secret as a whole."""

    namespace: str
    name: str
    key: str = ""

    @property
    def identity_id(self) -> str:
        """What records call the credential where no mapping names it."""
        return f"secret/{self.namespace}/{self.name}/{self.key}" if self.key else f"secret/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class WholeSource:
    """An `envFrom` entry: each key of the object becomes a variable of that name, behind the prefix."""

    prefix: str
    secret: str = ""
    """Name of the Secret; empty for a ConfigMap."""

    def key_of(self, variable: str) -> str:
        """The key that a variable would come from; empty when it cannot come from here."""
        return variable[len(self.prefix) :] if variable.startswith(self.prefix) else ""


class MountKind(StrEnum):
    """What is behind a mounted file."""

    SECRET = "secret"  # noqa: S105 - the name of a kind of volume
    TOKEN = "token"  # noqa: S105 - as SECRET
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class MountedCredential:
    """A file, or a folder of files, that a credential is mounted as."""

    path: str
    """As `plain_path` spells it, so without the kubelet's dated folder."""
    kind: MountKind
    secret: SecretKey | None = None
    """For SECRET; without a key for a folder that holds all of them, each as a file of its name."""
    provider_class: str = ""
    """For PROVIDER: the SecretProviderClass of the CSI driver."""
    is_folder: bool = False

    def file_of(self, path: str) -> str | None:
        """The file's name below the folder, empty for the mounted file itself; None when `path` is another file."""
        if not self.is_folder:
            return "" if path == self.path else None
        below = path.removeprefix(self.path + "/")
        return below if below != path and below else None


@dataclass(frozen=True, slots=True)
class Declared:
    """The credentials of one container, as the Pod's spec has them."""

    variables: Mapping[str, SecretKey | None] = field(default_factory=dict)
    """Variables that the spec sets by name; None for one that does not come from a Secret."""
    sources: tuple[WholeSource, ...] = ()
    mounts: tuple[MountedCredential, ...] = ()
    secrets_of_pod: frozenset[str] = frozenset()
    """Names of the Secrets that the Pod's containers are given, whichever of them."""

    @property
    def secrets(self) -> Iterator[str]:
        """Names of the Secrets, some of them several times."""
        yield from (key.name for key in self.variables.values() if key is not None)
        yield from (one.secret for one in self.sources if one.secret)
        yield from (one.secret.name for one in self.mounts if one.secret is not None)

    @property
    def has_token(self) -> bool:
        """Whether a token of the ServiceAccount is mounted: without one the container cannot act as it."""
        return any(one.kind is MountKind.TOKEN for one in self.mounts)


NOTHING_DECLARED = Declared()
