"""``python -m ptychoseg_stream`` is the command `ptychoseg`."""

from .cli import start

start()
