"""Local stand-ins for cloud providers, which check what they are sent."""
