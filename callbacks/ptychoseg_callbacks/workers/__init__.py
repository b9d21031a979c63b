"""What labels beside a RunEngine: a thread, or a process of its own."""
