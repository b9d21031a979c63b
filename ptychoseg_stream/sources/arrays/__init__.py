"""Stacks of frames in files, and what goes with them."""
