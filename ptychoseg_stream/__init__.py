"""Labels every pixel of every diffraction frame while the scan runs, and writes the masks to Tiled."""

__version__ = "0.1.0"
