"""Which parts of a graph can be left out whole."""
