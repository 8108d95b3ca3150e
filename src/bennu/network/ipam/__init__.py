"""Address management: which subnet a network has, and who has which address of it. Knows no kernel."""
