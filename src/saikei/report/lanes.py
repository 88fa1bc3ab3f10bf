"""The graph before and after as rows with lanes, in blocks that fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from saikei.runs import numbers
from saikei.runs.graph_diff import GraphDiff, Node, both, channels_text

# Lane and height of both ends of a line; heights are 0 (top), 1 (middle) and 2 (bottom) of a row.
Line: TypeAlias = tuple[int, int, int, int]

# Graphs with more rows are shown folded.
_UNFOLDED = 45


@dataclass(frozen=True)
class Row:
    """A node as a row of the picture.

    Args:
        status: What became of it, one of the words of `GraphDiff`.
        name: Its name, with an arrow where the models differ.
        kind: Its kind, with an arrow where the models differ.
        channels: Its channels, such as `"24 of 32"`.
        kept: Share of the channels that is kept, in percent; `None` if that has no meaning.
        before: MACs in the first model as text; empty if it was added.
        after: MACs in the second model as text; empty if it was removed.
        before_width: Length of the bar of the first model, in percent of the longest.
        after_width: Length of the bar of the second model.
        time: Milliseconds in both models as text; empty if they were not measured.
        title: More about the node: shapes and parameters.
        lane: Lane of its dot.
        lines: The lines through the row.
    """

    status: str
    name: str
    kind: str
    channels: str
    kept: float | None
    before: str
    after: str
    before_width: float
    after_width: float
    time: str
    title: str
    lane: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Block:
    """Rows between two nodes that all paths pass through; a single row is a node of its own.

    Args:
        rows: Its rows.
        lanes: Number of lanes.
        head: Lines that spread from the first lane to those of the rows; empty for a single row.
        tail: Lines from the lanes back to the first one.
        title: What it holds, for when it is folded.
        note: What became of its nodes.
        before: MACs in the first model as text.
        after: MACs in the second model as text.
        time: Milliseconds in both models as text; empty if they were not measured.
    """

    rows: tuple[Row, ...]
    lanes: int
    head: tuple[Line, ...]
    tail: tuple[Line, ...]
    title: str
    note: str
    before: str
    after: str
    time: str


@dataclass(frozen=True)
class Picture:
    """Two graphs laid over each other, ready to be drawn.

    Args:
        title: Names of the two models.
        summary: The totals in a sentence.
        blocks: All rows, in blocks.
        unfolded: Whether blocks are open at first.
        batch_size: Samples in the batch that milliseconds are for; 0 if none were measured.
    """

    title: str
    summary: str
    blocks: tuple[Block, ...]
    unfolded: bool
    batch_size: int

    @property
    def folds(self) -> bool:
        """Whether any block can be folded."""
        return any(len(block.rows) > 1 for block in self.blocks)


def picture_of(diff: GraphDiff) -> Picture:
    """Lay out two graphs that were compared.

    Args:
        diff: The comparison.
    """
    nodes = diff.nodes
    longest = max((side.macs or 0 for node in nodes for side in (node.before, node.after) if side),
                  default=0)  # fmt: skip
    blocks = []
    for start, end in _parts(nodes):
        if end - start == 1:
            line = ((0, 0, 0, 2),) if 0 < start < len(nodes) - 1 else ((0, 1, 0, 2),)
            line = ((0, 0, 0, 1),) if start == len(nodes) - 1 and start else line
            rows = (_row(nodes[start], longest, 0, line),)
            blocks.append(_block(nodes[start:end], rows, 1, (), ()))
        else:
            blocks.append(_block(nodes[start:end], *_laid_out(nodes, start, end, longest)))
    return Picture(
        f"{diff.first} → {diff.second}",
        diff.summary(),
        tuple(blocks),
        len(nodes) <= _UNFOLDED,
        diff.batch_size if diff.timed else 0,
    )


def _parts(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """Ranges of nodes: those that all paths pass through alone, and those between two of them."""
    reach, cuts = 0, []
    ends = [max((i for i, n in enumerate(nodes) if number in n.inputs), default=number)
            for number in range(len(nodes))]  # fmt: skip
    for number, end in enumerate(ends):
        if reach <= number:
            cuts.append(number)
        reach = max(reach, end)
    parts, last = [], 0
    for cut in cuts:
        if cut > last:
            parts.append((last, cut))
        parts.append((cut, cut + 1))
        last = cut + 1
    if last < len(nodes):
        parts.append((last, len(nodes)))
    return parts


def _laid_out(
    nodes: Sequence[Node], start: int, end: int, longest: int
) -> tuple[tuple[Row, ...], int, tuple[Line, ...], tuple[Line, ...]]:
    """Rows of a block with their lanes; an edge keeps its lane until the node that reads it."""
    entry, readers = start - 1, range(start, end + 1)
    lanes: list[tuple[int, int] | None] = []
    for reader in readers:
        if reader < len(nodes) and entry >= 0 and entry in nodes[reader].inputs:
            _place(lanes, (entry, reader))
    head = tuple((0, 0, lane, 2) for lane, edge in enumerate(lanes) if edge is not None)
    width, rows = max(1, len(lanes)), []
    for number in range(start, end):
        before = list(lanes)
        own = [lane for lane, edge in enumerate(before) if edge is not None and edge[1] == number]
        for lane in own:
            lanes[lane] = None
        at = own[0] if own else _free(lanes)
        for reader in readers:
            if reader < len(nodes) and reader > number and number in nodes[reader].inputs:
                _place(lanes, (number, reader), at)
        width = max(width, len(lanes), at + 1)
        lines = [(lane, 0, at, 1) for lane in own]
        lines += [(at, 1, i, 2) for i, edge in enumerate(lanes) if edge and edge[0] == number]
        lines += [(i, 0, i, 2) for i, edge in enumerate(lanes) if edge and edge[0] != number]
        rows.append(_row(nodes[number], longest, at, tuple(lines)))
    tail = tuple((lane, 0, 0, 2) for lane, edge in enumerate(lanes) if edge is not None)
    return tuple(rows), width, head, tail


def _free(lanes: list[tuple[int, int] | None]) -> int:
    return next((i for i, edge in enumerate(lanes) if edge is None), len(lanes))


def _place(
    lanes: list[tuple[int, int] | None], edge: tuple[int, int], wish: int | None = None
) -> None:
    lane = _free(lanes)
    if wish is not None and (wish >= len(lanes) or lanes[wish] is None):
        lane = wish
    while len(lanes) <= lane:
        lanes.append(None)
    lanes[lane] = edge


def _row(node: Node, longest: int, lane: int, lines: tuple[Line, ...]) -> Row:
    name, kind = both(node.before, node.after)
    macs = [None if side is None else side.macs for side in (node.before, node.after)]
    texts = ["" if side is None else _macs(side.macs) for side in (node.before, node.after)]
    sides = [
        f"{word}: {'×'.join('?' if n is None else str(n) for n in side.shape) or '1'}, "
        f"{side.params:,} parameters"
        for word, side in (("before", node.before), ("after", node.after))
        if side is not None
    ]
    return Row(
        status=node.status,
        name=name,
        kind=kind,
        channels=channels_text(node),
        kept=None if node.kept is None else min(100.0, 100 * node.kept),
        before=texts[0],
        after=texts[1],
        before_width=100 * (macs[0] or 0) / max(longest, 1),
        after_width=100 * (macs[1] or 0) / max(longest, 1),
        time=_time([node]),
        title="; ".join(sides),
        lane=lane,
        lines=lines,
    )


def _time(nodes: Sequence[Node]) -> str:
    """Milliseconds of some nodes together, before and after."""
    sides = [[n.before for n in nodes if n.before], [n.after for n in nodes if n.after]]
    sums = [sum(one.milliseconds or 0 for one in side) for side in sides]
    known = [any(one.milliseconds is not None for one in side) for side in sides]
    texts = [
        f"{total:.2f}" if measured else "–" for total, measured in zip(sums, known, strict=True)
    ]
    return " → ".join(texts) if any(known) else ""


def _macs(count: int | None) -> str:
    return "?" if count is None else numbers.count(count) if count else "–"


def _block(
    nodes: Sequence[Node],
    rows: tuple[Row, ...],
    lanes: int,
    head: tuple[Line, ...],
    tail: tuple[Line, ...],
) -> Block:
    counts = {
        one: sum(n.status == one for n in nodes) for one in dict.fromkeys(n.status for n in nodes)
    }
    sums = [
        sum((side.macs or 0) for side in sides if side is not None)
        for sides in ([n.before for n in nodes], [n.after for n in nodes])
    ]
    return Block(
        rows=rows,
        lanes=lanes,
        head=head,
        tail=tail,
        title=f"{nodes[0].side.name} … {nodes[-1].side.name}",
        note=", ".join(f"{count} {status}" for status, count in counts.items()),
        before=_macs(sums[0]),
        after=_macs(sums[1]),
        time=_time(nodes),
    )
