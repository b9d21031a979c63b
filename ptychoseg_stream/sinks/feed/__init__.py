"""What was seen of a run, told live to whoever asks: every frame with its mask, as messages.

::

    server     FeedServer: the `node.ports.Feed`; one thread with the sockets
    options    its settings
    items      what a consumer gets; messages: items to bytes and back; wire: arrays and headers
    telling    frames, masks and products of a run become items
    log, shelf                   the messages of a run on disk; the runs in a folder
    consumers  who asks for what, and how much of it may be on its way
    orders     from the labelling thread to the feed's own
    sockets    how they are bound, encrypted, and what is said if that fails
"""
