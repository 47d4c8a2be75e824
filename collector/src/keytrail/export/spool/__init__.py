"""Records that wait for the backend, on disk if there is one.

- `entries`: what is queued, and the sender's side of the queue
- `durable`: the spool itself; `core`, `lanes`, `lane`, `ledger` are what it knows of each record
- `writer`, `gather`: the thread that gathers, writes and syncs; `keeper` makes room and looks after the files
- `segment`, `scan`, `files`, `disk`, `opening`, `owner`: the files; `dead`: what the backend refused for good
"""
