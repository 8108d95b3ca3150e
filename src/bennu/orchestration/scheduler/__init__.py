"""What is decided across services: which node gets a task, and which tasks lose theirs."""
