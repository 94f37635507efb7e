"""A run folder: every path, file name, reader and writer of it."""
