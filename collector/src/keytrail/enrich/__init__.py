"""Pods: which workload a process belongs to, and what its Pod's spec gives it.

`index` keeps what the API server says of this node's pods, `origin` tells who only claims to run in one, and
`enricher` ties both to the events. Before it: decode; after it: identify.
"""
