"""One task on its node: what was seen of it, its next step, its traffic, its templates."""
