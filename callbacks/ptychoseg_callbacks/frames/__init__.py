"""Finds the frames of a run in its documents, gaps and retakes included."""
