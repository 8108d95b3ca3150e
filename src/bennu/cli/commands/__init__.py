"""One module for each of Bennu's own words."""
