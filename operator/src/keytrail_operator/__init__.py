"""Keytrail's operator: TracingPolicies and identity mappings kept in order. Not written yet."""
