"""The commands for people: what stands, why it does not work, what would change.

Each is a module of its own, loaded when it is called: the operator's process needs none of them.
"""
