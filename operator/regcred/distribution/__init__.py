"""Where logins go: which namespaces, which bytes, which actions, and the writes."""
