"""The values of the core: what is wanted, what is stored, what a plan may do to it. Nothing decides here."""
