"""A container's log: conmon's lines as records, the files they are in, their bounds, and their readers."""
