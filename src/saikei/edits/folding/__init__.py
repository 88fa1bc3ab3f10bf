"""What can be taken out of a graph without changing its function, and how."""
