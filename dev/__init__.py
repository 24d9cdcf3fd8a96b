"""The real local control plane behind the demo, the tests and the benchmarks.

Nothing in here is part of the operator: it starts real etcd, kube-apiserver, kube-controller-manager and
docker-registry processes on loopback, from Debian's own packages, so that what we claim is seen to be so.
Run a module from the repository root, for example `python -m dev.binaries`.
"""
