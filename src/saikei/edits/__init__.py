"""Edits of a model's structure: values that, called with a model, give a new one."""

from saikei.edits.base import Edit, RefittingEdit
from saikei.edits.cut import cut
from saikei.edits.dequantize import Dequantize
from saikei.edits.drop_channels import DropChannels
from saikei.edits.factorize import Factorize
from saikei.edits.fold_batch_norm import FoldBatchNorm
from saikei.edits.prune_channels import PruneChannels
from saikei.edits.prune_vocabulary import PruneVocabulary
from saikei.edits.quantize import Quantize
from saikei.edits.recipe import Recipe
from saikei.edits.remove_layers import RemoveLayers
from saikei.edits.remove_no_ops import RemoveNoOps
from saikei.edits.replace_activation import ReplaceActivation
from saikei.edits.replace_head import ReplaceHead
from saikei.edits.replace_kernel import ReplaceKernel
from saikei.edits.replace_pooling import ReplacePooling
from saikei.edits.separate import Separate
from saikei.edits.sparsify import Sparsify

__all__ = [
    "Dequantize",
    "DropChannels",
    "Edit",
    "Factorize",
    "FoldBatchNorm",
    "PruneChannels",
    "PruneVocabulary",
    "Quantize",
    "Recipe",
    "RefittingEdit",
    "RemoveLayers",
    "RemoveNoOps",
    "ReplaceActivation",
    "ReplaceHead",
    "ReplaceKernel",
    "ReplacePooling",
    "Separate",
    "Sparsify",
    "cut",
]
