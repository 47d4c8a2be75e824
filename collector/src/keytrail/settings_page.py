"""Every setting of the collector, as docs/settings.md.

The declarations of `keytrail.settings` come in, as the settings file that `example_settings` makes of them; Markdown
goes out. `python -m keytrail.settings_page docs/settings.md` renews the page; a test fails when it is stale.
"""

import sys
from pathlib import Path
from typing import Final

from keytrail.settings_sources import example_settings

_HEAD: Final = """\
# Settings: every one

<!-- Made by `python -m keytrail.settings_page`; do not edit. -->

A setting is given in a YAML file (`--settings FILE` or `KEYTRAIL_SETTINGS`), by a variable of the environment, or by
an option where the command has one; the later of these counts. `keytrail config show` prints what is in force and where
each value comes from. An unknown name, a value out of bounds or a file that is not there is refused before anything
starts. The chart has [values](../deploy/helm/keytrail/README.md#values) for the usual ones, and `collector.settings`.

Where records go is said by OpenTelemetry's own variables, as its specification has them (the timeout in milliseconds):
`OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL` (`grpc`, `http/protobuf`; left out, port 4318 or a path means HTTP),
`_HEADERS`, `_TIMEOUT`, `_COMPRESSION`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_INSECURE`, each also
with `_LOGS_` for records and `_METRICS_` for the collector's own metrics; `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_SERVICE_NAME`; `OTEL_METRICS_EXPORTER=none` sends no metrics. `KEYTRAIL_OTLP_HEADERS_FILE` names a file of
headers, one a line, read again when it changes: the agent reports the variables of every process, ours too.

"""


def page() -> str:
    """The whole page."""
    return f"{_HEAD}```yaml\n{example_settings()}```\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
