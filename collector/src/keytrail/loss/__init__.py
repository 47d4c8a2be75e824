"""Loss made visible: whoever watches the stream, the agent's counters or our own start makes a `Gap` of what it sees.

In: events with their batch, transitions of the connection, the agent's metrics page and policy counters. Out: gaps, and
from the agent's export file the events that were missed. Tetragon drops silently, replays nothing and numbers nothing:
all that is here is circumstantial, and each gap says how much of it is known.

- `watch`: what the stream itself shows (`lateness`, `unannounced`, `episode` are its parts)
- `agent_metrics`, `policy_counters`: what the agent counts; `monitor` is the thread that asks
- `backfill`, `seen`: what the agent's export file has of an interval, without what arrived

Knows no decoder, no rule and no output.
"""
