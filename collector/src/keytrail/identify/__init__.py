"""Evidence in, attribution out: which machine identity does this process carry?

In: a process with the names of its environment's variables and its redacted command line, and the mappings in force.
Out: an `Attribution`, computed once for each process image. Must not know events, messages or outputs.
"""
