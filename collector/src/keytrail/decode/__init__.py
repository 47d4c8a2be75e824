"""Raw message in, domain event out. The only stage that sees secrets: values and unredacted text end here.

`decoder` reads a message, `processes` makes the objects that all events of a process share, `table` keeps them,
`hooks` and the modules it names read what is particular to a kernel hook, on demand. The next stage is `identify`.
"""
