"""Ring 3: a derived run and its raw frames as one file, for those who reconstruct."""
