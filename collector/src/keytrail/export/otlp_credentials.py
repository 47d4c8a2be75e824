"""Headers and TLS files of the backend, as they are on disk now.

In flow the settings, out come the headers for the next request, the word that certificates were replaced, and texts
that are safe to log. Tokens and certificates are rotated under a running process (a Secret's volume swaps a symbolic
link, so a look at each file follows it): both are looked at before each request, which costs some microseconds. Knows
no protocol; both transports ask here.
"""

import logging
import os
import re
from pathlib import Path
from typing import Final

from keytrail.domain.errors import SettingsError
from keytrail.export.otlp_settings import OtlpSettings, read_headers

TEXT_LIMIT: Final = 300
log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


class Credentials:
    """What proves us to the backend. For one thread."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._headers = settings.headers
        self._headers_stamp = _stamp(settings.headers_file)
        self._tls_stamps = self._look_at_tls()
        self._secrets: set[str] = set()
        self._keep_out(settings.headers)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers of the next request; read again when their file changed. A file that is no good changes nothing."""
        file = self._settings.headers_file
        if file is not None and (stamp := _stamp(file)) != self._headers_stamp:
            self._headers_stamp = stamp
            try:
                self._headers = read_headers(file, self._settings.protocol)
            except SettingsError as error:
                log.warning("%s; the headers that were read before stay in force", error)
            else:
                self._keep_out(self._headers)
        return self._headers

    def tls_changed(self) -> bool:
        """Whether a certificate or key file changed since the last time this was asked."""
        before, self._tls_stamps = self._tls_stamps, self._look_at_tls()
        return before != self._tls_stamps

    def safe_text(self, text: str) -> str:
        """Make an error safe to log and show: backends repeat our credentials, and can send anything."""
        if self._secrets:
            known = sorted(self._secrets, key=len, reverse=True)
            text = re.sub("|".join(map(re.escape, known)), "[redacted]", text)
        return "".join(c if c.isprintable() else " " for c in text[: 4 * TEXT_LIMIT])[:TEXT_LIMIT]

    def _look_at_tls(self) -> tuple[_Stamp, ...]:
        settings = self._settings
        return tuple(map(_stamp, (settings.certificate, settings.client_key, settings.client_certificate)))

    def _keep_out(self, headers: tuple[tuple[str, str], ...]) -> None:
        if len(self._secrets) > TEXT_LIMIT:  # tokens of long ago are worth nothing
            self._secrets.clear()
        # `Bearer abc`: the scheme's name is no secret, what follows is one also by itself.
        self._secrets |= {secret for _, value in headers for secret in (value, value.rpartition(" ")[2]) if secret}


def _stamp(file: Path | None) -> _Stamp:
    if file is None:
        return None
    try:
        found = os.stat(file)  # noqa: PTH116 - at each request, and Path.stat costs as much again
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
