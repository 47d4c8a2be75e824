"""Where raw messages come from: the agent's gRPC stream, a recording, the agent's JSON export file, standard input.

Every source hands over lists of serialized `tetragon.GetEventsResponse` messages and nothing else: what is in them is
decode's business, so that a faster reader can replace a slower one without anybody noticing.
"""
