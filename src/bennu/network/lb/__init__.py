"""Load balancing of services: virtual addresses and published ports lead to the tasks that accept connections."""
