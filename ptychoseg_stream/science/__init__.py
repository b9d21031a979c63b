"""Ring 0: arrays in, arrays out. No I/O, clock, thread, log, Bluesky or Tiled."""
