"""The parts of `Cascade`: which thresholds there are to choose from, and how one is chosen."""
