"""Memory, threads, and the native calls that run bound plans."""
