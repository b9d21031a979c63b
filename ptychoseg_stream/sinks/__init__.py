"""Ring 2: masks leave.

::

    tiled      TiledSink: one derived BlueskyRun per raw run; its settings are in options
    hdf5       HDF5Sink: one file per run
    memory     MemorySink: lists
    embedded   a Tiled server for as long as a program runs; testing has one inside the process
    stored     reads a run back; upload sends what waits in the spool

    route      what the two threads of TiledSink share: runs, and what of them is on its way
    keeper     one thread: batches out of rows, and onto the disk when Tiled does not take them
    uploader   the other one: whose turn it is; courier: one load to Tiled
    spool, segment               the spool: folders, and HDF5 segments in them
    tiled_run, tiled_nodes       the layout of a run in Tiled; connection: every failure in words
    batch      rows as memory, segments and Tiled speak of them
    derived    documents
    rows, columns                the order of rows, and the table beside the masks
    arrays, side_tables          the arrays that may be published; alarms and stages
"""
