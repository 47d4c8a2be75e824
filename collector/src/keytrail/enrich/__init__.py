"""Pods and peers: which workload a process belongs to, what its Pod's spec gives it, and whom it talks to.

`index` keeps what the API server says of this node's pods, `origin` tells who only claims to run in one, and
`enricher` ties both to the events. `peer_index` keeps who has which address, `peers` tells it of an event when somebody
asks, `resolver` looks hosts up beside the path. Before it: decode; after it: identify.
"""
