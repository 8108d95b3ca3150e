"""A container's log: its options, its lines as records, the files they are in, and their readers."""
