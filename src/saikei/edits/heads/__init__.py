"""Parts of `ReplaceHead`."""
