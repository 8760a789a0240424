"""The embedded checkpoint, a small PaliGemma in the hub's layout; ``training`` is how it was made."""
