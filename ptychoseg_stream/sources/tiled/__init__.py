"""Runs in a Tiled server: followed, replayed, and asked for what was missed."""
