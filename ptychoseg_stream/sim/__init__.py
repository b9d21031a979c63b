"""Ring 2: the simulated experiment: optics, detectors, plans."""
