"""Keytrail's operator: keeps Tetragon's TracingPolicies as rules and mappings need them, and says what is wrong.

`app` composes it. Handlers put what the API server tells into `stores`; a `worker` makes a `World` of them, asks the
pure functions in `reconcile` what to do, and has `acting` do it.
"""
