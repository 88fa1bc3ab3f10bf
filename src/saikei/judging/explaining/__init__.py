"""What each member of a fusion is worth: the parts of `explain`."""
