"""What is observed beside the World, composed: DNS for the hosts that mappings name, Secrets that may be read.

In flow settings and the World of each run; out flow the reconcilers that need either, and what ends with the operator.
"""

from collections.abc import Callable

from keytrail.kube.api import Api
from keytrail_operator.hosts import Hosts
from keytrail_operator.reconcile import AnyReconciler
from keytrail_operator.reconcile.mapping_checks import Seen, hosts_of
from keytrail_operator.reconcile.mappings import mappings
from keytrail_operator.secret_reader import SecretReader
from keytrail_operator.settings import OperatorSettings
from keytrail_operator.world import World


class Beside:
    """Observes between `start` and `close`."""

    def __init__(self, settings: OperatorSettings, api: Api, changed: Callable[[], None]) -> None:
        """`changed` is called when something else is known than before."""
        self._hosts = Hosts(changed)
        allowed = frozenset((one.partition("/")[0], one.partition("/")[2]) for one in settings.fingerprint_secrets)
        self._secrets = SecretReader(api, settings.namespace, allowed) if allowed else None

    def start(self) -> None:
        """Begin to observe."""
        self._hosts.start()

    def close(self) -> None:
        """Stop, without waiting for a resolver that does not answer."""
        self._hosts.close(0.0)

    def reconcilers(self) -> tuple[AnyReconciler, ...]:
        """Return those that use it, in their order."""
        published = () if self._secrets is None else (self._secrets.reconciler(),)
        return (*published, mappings(self._seen))

    def _seen(self, world: World) -> Seen:
        self._hosts.wanted(host for one in world.mappings if one.value is not None for host in hosts_of(one.value))
        return Seen(self._hosts.known(), {} if self._secrets is None else self._secrets.known())
