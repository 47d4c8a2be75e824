"""Keytrail: which machine identity did which process use, where to, and was that expected?

This module holds the version and nothing else: the operator imports `keytrail.domain` and must not pay for more.
"""

__version__ = "0.1.0"
