"""Documents written by hand: one run, one stream, one key."""

from pathlib import Path
from typing import Any

import numpy as np
from detectors_support import watermarked
from event_model import compose_run
from ptychoseg_callbacks.frames.finder import FinderOptions, FrameFinder

KEY = {"source": "test", "dtype": "array", "shape": [12, 16], "dtype_numpy": "<u2"}


class Documents:
    """One run with one stream, its images under the key `image`."""

    def __init__(
        self, key: dict[str, Any] | None = None, handlers: Any = None, **options: Any
    ) -> None:
        self.run = compose_run(uid="run")
        self.keys = {"image": key or KEY}
        self.stream = self.run.compose_descriptor(
            name="primary", data_keys=self.keys, validate=False
        )
        options = {"read_timeout": 0.02, "refill_timeout": 0.02, **options}
        self.finder = FrameFinder(self.run.start_doc, FinderOptions(**options), None, handlers)
        assert list(self.finder.of("descriptor", self.stream.descriptor_doc)) == []

    def event(self, value: Any, filled: bool = True) -> dict[str, Any]:
        return dict(
            self.stream.compose_event(
                data={"image": value},
                timestamps={"image": 12.5},
                filled={"image": filled},
                validate=False,
            )
        )

    def datum(self, path: Path, start: int, stop: int, **parameters: Any) -> Any:
        bundle = self.run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=path.as_uri(),
            data_key="image",
            parameters={"dataset": "/frames", **parameters},
        )
        assert list(self.finder.of("stream_resource", bundle.stream_resource_doc)) == []
        return bundle.compose_stream_datum(
            indices={"start": start, "stop": stop},
            seq_nums={"start": start + 1, "stop": stop + 1},
            descriptor=self.stream.descriptor_doc,
        )


def stack(frames: int) -> np.ndarray:
    return np.stack([watermarked(n) for n in range(frames)])


def first_pixels(frames: Any) -> list[int]:
    return [int(frame.image[0, 0]) for frame in frames]
