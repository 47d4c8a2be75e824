"""The one door to the API server of Kubernetes, shared by enrichment, configuration, status and the command line.

`access` knows where the server is and how to be let in, `api` sends requests, `watch` keeps a copy of a collection
up to date; `config_watch` and `status` are made of these. Everything is plain JSON: no client models, which weigh many
times what a collector keeps of an object. Knows no stage: what becomes of an object is said by callbacks.
"""
