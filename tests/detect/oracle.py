"""The CEL engine's own answer to a condition: what the generated code must agree with.

A checked condition and an event come in, true, false or "an error" comes out. The answer of the generated code for one
condition stands beside it.
"""

from collections.abc import Callable

from cel_expr_python import cel  # type: ignore[import-untyped] # stubs without py.typed

from keytrail.detect.declarations import activation
from keytrail.detect.functions import CelError
from keytrail.detect.program import condition_function
from keytrail.detect.rule_check import Expression
from keytrail.domain.event import Event

Answer = bool | None
"""None: the condition ended in an error."""


def engine_answer(expression: Expression, event: Event) -> Answer:
    """What the CEL engine says."""
    condition = expression.condition
    value = condition.expression.eval(data=activation(event, condition.constants))
    return None if value.type() == cel.Type.ERROR else bool(value.plain_value())


def compiled(expression: Expression) -> Callable[[Event], Answer]:
    """Make a function that says what the generated code says."""
    function = condition_function(expression)

    def answer(event: Event) -> Answer:
        try:
            return function(event)
        except CelError:
            return None

    return answer
