"""Ring 2: masks leave.

::

    tiled      TiledSink: one derived BlueskyRun per raw run; its settings are in options
    hdf5       HDF5Sink: one file per run
    memory     MemorySink: lists
    embedded   a Tiled server for as long as a program runs; testing has one inside the process

    worker     the thread behind a sink
    courier    batches, attempts, and what happens when Tiled says no
    tiled_run, run_file      the layout of a run in Tiled, and in a file; tiled_nodes: its nodes
    derived, history         documents; rows kept in case
    rows, columns            the order of rows, and the table beside the masks
    arrays, side_tables      the arrays that may be published; alarms and stages
"""
