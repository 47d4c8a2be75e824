"""Tetragon's messages: our own .proto files and the modules that `make proto` generates from them.

Source of every number and name: the fact table `tests/corpus/tetragon-api.csv`, which a test compares with the
generated descriptors. The table describes Tetragon 1.8 before its release, a strict superset on the wire of 1.4 to 1.7.
"""
