"""The measuring side's processes: a host that has torch imported, and the child that measures one group.

Nothing here imports torch at the top: the parent uses `death` and `progress` too.
"""
