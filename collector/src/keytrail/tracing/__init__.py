"""TracingPolicies: what an agent would make of one, the shipped library, and its rendering with parameters.

Pure functions over manifests: nothing here talks to an agent. `inspection` judges a manifest, `policy` reads the
library, `render` makes the manifest that is loaded, `docs` writes docs/policies.md, `cli` is `keytrail policies check`.
"""

from keytrail.tracing.inspection import check, warnings_of
from keytrail.tracing.policy import Policy, sensors
from keytrail.tracing.render import rendered, unique_name

__all__ = ["Policy", "check", "rendered", "sensors", "unique_name", "warnings_of"]
