"""Recorded runs, of documents or of frames, given as if they were measured now."""
