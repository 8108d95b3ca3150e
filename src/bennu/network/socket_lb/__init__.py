"""Load balancing at connect(): clients on this host reach a container without translation of their packets."""
