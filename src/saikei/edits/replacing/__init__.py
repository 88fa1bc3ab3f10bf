"""Parts of the edits that replace one layer by another."""
