"""Ring 1: what is remembered between frames."""
