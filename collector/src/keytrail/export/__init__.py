"""What leaves the collector: OTLP log records, JSON lines, terminal lines.

Events come in from the pipeline with their attribution set; bytes and lines go out. Nothing here decides what an
event means, and nothing here ever sees a credential's value: decode dropped or redacted it.
"""
