"""Detection: events with their attribution in, findings out.

Rules come as manifests, are type-checked by the CEL engine when they are loaded and become Python functions, one for
each kind of event. Start reading at `engine`; what a rule may say is the table in `environment`.
"""

from keytrail.detect.engine import Engine
from keytrail.detect.library import LoadedRule, check, load_rules
from keytrail.detect.rule_tests import RuleTestResult, run_rule_tests

__all__ = ["Engine", "LoadedRule", "RuleTestResult", "check", "load_rules", "run_rule_tests"]
