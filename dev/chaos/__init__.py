"""Everything that a cluster does to an operator, done to ours on purpose, on the real control plane, with figures.

`make chaos` runs every experiment, `make chaos ONLY=silent-watch` one.  Each states what is expected, says what was
seen, and holds or does not; at the end come totals over the whole run, from the API server's own audit log.
"""
