"""Ring 2: where frames come from besides a live RunEngine."""
