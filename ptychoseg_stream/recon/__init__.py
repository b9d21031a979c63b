"""Reconstruction while the scan runs, with cdtools (the extra ``recon``).

::

    growing    the scan so far: frames, masks and positions as arrays
    schedule   how much each pixel of each frame counts, and when
    probe      the first probe, from pupil and mean frame
    model      the forward model; engine: one epoch after the other
    live       takes what a feed brings between two epochs
    files      the same scan out of a CXI file; summary: what its frames say together
    store      object, probe and error in Tiled; picture: as a PNG
    metrics    how good it is, against an object that is known
    toolkit    the one place where cdtools is imported

Validity says which pixels count. Classes never do: they tell the background, the first probe, and
what the first epochs look at.
"""
