"""Parts of `Boost`."""
