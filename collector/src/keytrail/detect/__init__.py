"""Detection: events with their attribution in, findings out.

Rules come as manifests, are type-checked by the CEL engine when they are loaded and become Python functions, one for
each kind of event. Start reading at `engine`; what a rule may say is the table in `environment`.
"""

from keytrail.detect.engine import Engine

__all__ = ["Engine"]
