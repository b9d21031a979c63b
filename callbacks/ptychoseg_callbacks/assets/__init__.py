"""Where the images of a run are, and how they are read."""
