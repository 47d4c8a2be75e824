"""The nouns of Keytrail: events, processes, identities, findings, resources and errors.

Pure data and pure functions: nothing here opens a file, a socket or a clock, and nothing here knows protobuf, gRPC,
Kubernetes or OpenTelemetry. Every stage speaks in these types and no stage knows another.
"""
