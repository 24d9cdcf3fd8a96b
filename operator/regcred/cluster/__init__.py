"""Kubernetes input and output on plain dicts: client, reflector, mirror, lease and events."""
