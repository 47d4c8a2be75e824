"""Field filters of GetEventsRequest: an event goes in, the event without the masked fields comes out.

Paths are relative to the inner message and descend into repeated ones. Several filters work one after another on the
already reduced event. The response's own fields (node_name, time, cluster_name, node_labels) cannot be removed.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from keytrail.proto.tetragon.events_pb2 import FieldFilter, FieldFilterAction, GetEventsResponse
from keytrail.testing.fake_tetragon_filters import event_number

_Mask = dict[str, Any]
"""Field name -> mask of its message; an empty mask is the whole field."""


class FieldMasks:
    """The compiled field filters of one request."""

    def __init__(self, filters: Iterable[FieldFilter]) -> None:
        self._filters = [(spec, _mask_of(spec.fields.paths)) for spec in filters]

    def __bool__(self) -> bool:
        return bool(self._filters)

    def apply(self, response: GetEventsResponse) -> None:
        """Remove from the event what the filters do not want of its kind."""
        number = event_number(response)
        if not number:
            return
        inner = getattr(response, response.WhichOneof("event") or "")
        for spec, mask in self._filters:
            if spec.event_set and (number in spec.event_set) == spec.invert_event_set.value:
                continue
            (_exclude if spec.action == FieldFilterAction.EXCLUDE else _include)(inner, mask)


def _mask_of(paths: Iterable[str]) -> _Mask:
    mask: _Mask = {}
    for path in sorted(paths, key=len, reverse=True):  # a shorter path, coming later, takes the whole of its field
        *parents, last = path.split(".")
        level = mask
        for name in parents:
            level = level.setdefault(name, {})
        level[last] = {}
    return mask


def _include(message: Message, mask: _Mask) -> None:
    for field, value in message.ListFields():
        if field.name not in mask:
            message.ClearField(field.name)
        elif mask[field.name]:
            for part in _messages_of(field, value):
                _include(part, mask[field.name])


def _exclude(message: Message, mask: _Mask) -> None:
    for field, value in message.ListFields():
        if field.name in mask:
            if not mask[field.name]:
                message.ClearField(field.name)
            for part in _messages_of(field, value):
                _exclude(part, mask[field.name])


def _messages_of(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return []
    return [value] if isinstance(value, Message) else list(value)
