"""The documents of open runs on disk."""
