"""regcred: keeps a working pull Secret in every chosen namespace of a Kubernetes cluster."""

__version__ = "0.1.0"
