"""`make bench`: how fast regcred is, against a bare client that does nothing but the same writes.

The same work is done in turn, in one run, on one API server: by the operator, as a process with the permissions of
its own manifests, and by a loop of some forty lines on aiohttp.  The second is the limit of this API server with any
client, so the ratio says what regcred costs, whatever the machine.  Times are the API server's own (its audit log).
"""
