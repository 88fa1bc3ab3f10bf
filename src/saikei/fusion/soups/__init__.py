"""Parts of soups: kernels that merge tensors, methods, alignment, and files."""
