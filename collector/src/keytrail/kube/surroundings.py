"""Whether this process runs in a Pod that may ask its cluster's API server. Light: asked before anything is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a Pod's token and the cluster's authority."""
HOST: Final = "KUBERNETES_SERVICE_HOST"
PORT: Final = "KUBERNETES_SERVICE_PORT"


def in_pod(environ: Mapping[str, str], folder: Path = ACCOUNT_FOLDER) -> bool:
    """Whether the kubelet gave this process the address of an API server and a token."""
    return bool(environ.get(HOST) and environ.get(PORT)) and (folder / "token").is_file()
