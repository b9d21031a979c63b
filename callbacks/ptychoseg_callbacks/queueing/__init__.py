"""Documents on their way from a source to the loop: let in once, written down, waiting."""
