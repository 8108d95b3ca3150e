"""The scenes of the demo: each module has its ACTS, played in order on one stage."""
