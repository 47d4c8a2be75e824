"""Fakes that users may import for tests of their own: real servers with the real components' manners, no mocks.

`fake_tetragon` is an agent to read events from, `otlp_sink` a backend to send records to. `recordings` holds what a
real agent sent.
"""
