"""What objects of every kind have in common: metadata, and the documents of fields that many of them have.

Plain data comes in through `keytrail.domain.shape.read`, parts of resources go out. The kinds themselves stand in
`resources` (identities) and `rules` (detection). Lists and texts are bounded, because whoever may write an object could
otherwise fill every collector. Knows no kind.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from keytrail.domain.shape import Doc, Format, Rules

API_VERSION = "keytrail.io/v1alpha1"
BUILTIN_LABEL = "keytrail.io/builtin"  # "true" on the manifests that Keytrail ships


def _reject_network(text: str) -> str:
    address, _, prefix = text.partition("/")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "address or prefix length is out of range"
    exact = network.network_address == ipaddress.ip_address(address)
    return "" if exact else f"host bits are set, did you mean {network.network_address}/{prefix}?"


CIDR = Format(
    "cidr",
    "a network such as 10.0.0.0/8 or fd00::/8",
    _reject_network,
    # Not `==`: an API server 1.31 reckons with any cost when two networks are compared, and refuses the definition.
    "isCIDR({text}) && cidr({text}) in [cidr({text}).masked()]",
    # The address that was probably meant cannot be told: CEL's budget knows no bound of it as text.
    "isCIDR({text}) ? 'expected a network such as 10.0.0.0/8 or fd00::/8: host bits are set' : "
    "'expected a network such as 10.0.0.0/8 or fd00::/8'",
)


def name_doc(description: str, example: str, *, max_length: int = 253, immutable: bool = False) -> Doc:
    """Document a name as the API server takes them: RFC 1123 with dots."""
    words = "a name of lower-case letters, digits, - and ., with a letter or digit at both ends"
    pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
    return Doc(description, example, max_length=max_length, pattern=pattern, expected=words, immutable=immutable)


def printable_doc(description: str, example: str, *, min_length: int = 1, max_length: int = 253) -> Doc:
    """Document text for one line of a record or page."""
    words = "text without control characters" + (f", at least {min_length} long" if min_length > 1 else "")
    pattern = "^[^[:cntrl:]]*$"
    return Doc(description, example, min_length=min_length, max_length=max_length, pattern=pattern, expected=words)


def word_doc(description: str, example: str) -> Doc:
    """Document a short word that records carry and queries group by."""
    words = f"a short word in lower case, such as {example}"
    return Doc(description, example, max_length=63, pattern="^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$", expected=words)


def path_doc(description: str, example: object, *, min_items: int = 0, max_items: int | None = None) -> Doc:
    """Document a path with wildcards."""
    full = (
        f"{description} Absolute, as the process sees it; * stands for any characters but /, ** for any characters; "
        "/var/run and /run are the same."
    )
    words = "a path that begins with / or *"
    return Doc(
        full, example, min_items=min_items, max_items=max_items, max_length=1024, pattern=r"^[/*].*$", expected=words
    )


def list_doc(description: str, *example: object, key: str = "") -> Doc:
    """Document a list."""
    return Doc(description, example, max_items=64, key=key)


def namespace_doc(description: str, example: object, *, max_items: int | None = None) -> Doc:
    """Document the name of a namespace, or a list of them."""
    words = "a namespace's name of lower-case letters, digits and -"
    pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    return Doc(description, example, max_items=max_items, max_length=63, pattern=pattern, expected=words)


NamespaceName = Annotated[
    str,
    namespace_doc(
        "Namespace. Required in a ClusterIdentityMapping. An IdentityMapping speaks for its own: it leaves this out; "
        "only one in a folder may name it.",
        "ml",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What is read of an object's metadata."""

    name: Annotated[str, name_doc("Name of the object.", "openai-prod")]
    namespace: NamespaceName = ""
    labels: Annotated[
        Mapping[str, str],
        Doc("Labels of the object.", {BUILTIN_LABEL: "true"}, max_items=256, min_length=0, max_length=63),
    ] = field(default_factory=dict, hash=False)
    RULES: ClassVar[Rules] = Rules(
        ignored=frozenset(
            {"annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"}
            | {"generateName", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"}
        )
    )


OBJECT_FIELDS = frozenset({"apiVersion", "kind", "status"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What objects of every kind have in common."""

    metadata: Annotated[Metadata, Doc("Name and labels.", {"name": "openai-prod", "namespace": "ml"})]


ObjectName = tuple[str, str, str]
"""Kind, namespace (empty for a cluster's own) and name."""


def name_of(resource: Resource) -> ObjectName:
    """Return what tells a resource apart from all others."""
    return type(resource).__name__, resource.metadata.namespace, resource.metadata.name
