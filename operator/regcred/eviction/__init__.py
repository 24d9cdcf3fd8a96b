"""Pods that lost the race: created before their service account listed the pull Secret, so they can never pull.

The way out is a successor, which gets the list as it is now.  Resources ask for it by `pods: {restartStuck: true}`.
"""
