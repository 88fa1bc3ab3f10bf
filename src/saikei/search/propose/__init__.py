"""From a library to structures under a budget, without any training."""

from saikei.search.propose.path import Front
from saikei.search.propose.propose import SHARES, Proposal, propose
from saikei.search.propose.proposer import Proposer, resolve, resolved
from saikei.search.propose.reachable import check_reachable
from saikei.search.propose.reality import Agreement, Measure, agreement, random_structures
from saikei.search.propose.structure import Family, Structure

__all__ = [
    "SHARES",
    "Agreement",
    "Family",
    "Front",
    "Measure",
    "Proposal",
    "Proposer",
    "Structure",
    "agreement",
    "check_reachable",
    "propose",
    "random_structures",
    "resolve",
    "resolved",
]
