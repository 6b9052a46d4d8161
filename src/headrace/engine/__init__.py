"""The engines: they read the log and write the store, in epochs."""
