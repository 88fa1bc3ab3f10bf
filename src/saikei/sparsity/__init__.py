"""Kernels with zeros: which weights count, where the zeros go, and which of them are meant."""

from saikei.sparsity.masks import Pattern
from saikei.sparsity.target import KernelZeros, SparsityTarget
from saikei.sparsity.zeros import is_kernel, meant_zeros

__all__ = ["KernelZeros", "Pattern", "SparsityTarget", "is_kernel", "meant_zeros"]
