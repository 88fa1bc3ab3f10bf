"""What the edits that put one layer in the place of another are made of."""
