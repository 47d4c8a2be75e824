"""Keytrail's own functions of the rule language, and the exact arithmetic of CEL where Python's differs.

Values of an event come in, values go out. The CEL engine calls the same functions when it is the oracle; the generated
code calls those of `patterns` as they were prepared when the rule was loaded.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from keytrail.detect.patterns import globber, networks

_ENTROPY_CHARACTERS: Final = 4_096
_MIN, _MAX = -(2**63), 2**63 - 1
T = TypeVar("T")


class CelError(ArithmeticError, LookupError):
    """A condition has no value for this event: overflow, division by zero, no such index or key."""


# -- arithmetic


def checked(value: int) -> int:
    """A result within 64 bits."""
    if _MIN <= value <= _MAX:
        return value
    raise CelError("integer overflow")


def divide(left: int, right: int) -> int:
    """Division that truncates towards zero, as CEL's does and Python's does not."""
    if right == 0:
        raise CelError("divide by zero")
    quotient = abs(left) // abs(right)
    return checked(quotient if (left < 0) == (right < 0) else -quotient)


def modulus(left: int, right: int) -> int:
    """The remainder of `divide`: it has the sign of the left side."""
    if right == 0:
        raise CelError("modulus by zero")
    if left == _MIN and right == -1:
        raise CelError("integer overflow")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def divide_doubles(left: float, right: float) -> float:
    """IEEE division: by zero it gives an infinity or NaN, no error."""
    if right:
        return left / right
    if not left or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def item(values: Sequence[T], index: int) -> T:
    """An item of a list; there are no negative indexes."""
    if 0 <= index < len(values):
        return values[index]
    raise CelError("index out of range")


def entry(values: Mapping[Any, T], key: object) -> T:
    """The value of a key."""
    try:
        return values[key]
    except KeyError:
        raise CelError("no such key") from None


# -- absorbing errors


def both(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    """`&&` where a side may fail: false wins over an error."""
    try:
        if not left():
            return False
    except CelError:
        if right():
            raise
        return False
    return right()


def either(left: Callable[[], bool], right: Callable[[], bool]) -> bool:
    """`||` where a side may fail: true wins over an error."""
    return not both(lambda: not left(), lambda: not right())


def every(values: Iterable[T], holds: Callable[[T], bool]) -> bool:
    """`all` where the predicate may fail: one false wins over any error."""
    failure: CelError | None = None
    for value in values:
        try:
            if not holds(value):
                return False
        except CelError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return True


def some(values: Iterable[T], holds: Callable[[T], bool]) -> bool:
    """`exists` where the predicate may fail: one true wins over any error."""
    return not every(values, lambda value: not holds(value))


# -- paths and text


def basename(path: str) -> str:
    """Last component."""
    return path.rpartition("/")[2]


def dirname(path: str) -> str:
    """All but the last component."""
    head, slash, _ = path.rpartition("/")
    return head or slash


def entropy(text: str) -> float:
    """Bits a character; 0.0 for nothing."""
    text = text[:_ENTROPY_CHARACTERS]
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values()) + 0.0 if total else 0.0


def lower_ascii(text: str) -> str:
    """Lower case of ASCII letters only: `str.lower` would also change others, and even the length."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}

IMPLEMENTATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "basename": basename,
    "dirname": dirname,
    "entropy": entropy,
    "glob": lambda path, pattern: globber(pattern)(path),
    "cidr": lambda address, network: networks(network)(address),
    "in_cidrs": lambda address, listed: networks(tuple(listed))(address),
}
"""By name, for the CEL engine."""
