# SPDX-License-Identifier: Apache-2.0
"""Choosing context by the view graph: views that widen what is seen and overlap, and weak links."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENOUGH_OVERLAP = 0.2  # of a view's keypoints; more does not tie a view any better


def select(overlap: NDArray[np.float64], sides: NDArray[np.intp], limit: int) -> list[int]:
    """Choose views around both ends, greedily: each is tied to the chosen ones and shows something new.

    Args:
        overlap: Share of keypoints that two views have in common, symmetric (N, N). Views 0 and 1 are the
            two ends and always chosen.
        sides: 0 for views on the reference's side, 1 on the target's, (N,).
        limit: Views to choose, at least 2.

    Returns:
        Indices in the order of choice, the two ends first.
    """
    chosen = [0, 1]
    rest = [view for view in range(len(overlap)) if view > 1]
    while rest and len(chosen) < limit:
        taken = [int((sides[chosen] == side).sum()) for side in (0, 1)]

        def worth(view: int, taken: list[int] = taken) -> float:
            own = [other for other in chosen if sides[other] == sides[view]]
            across = overlap[view, sides != sides[view]]
            tie = min(1.0, float(overlap[view, own].max()) / ENOUGH_OVERLAP)
            new = 1.0 - float(overlap[view, chosen].max())
            reach = float(across.max(initial=0.0))  # what leads across the gap is worth most
            fair = 1.0 / (1.0 + taken[sides[view]])
            return float((tie * new + reach) * fair)

        best = max(rest, key=lambda view: (worth(view), -view))
        if worth(best) <= 0.0:  # what is left is tied to nothing, or shows nothing new
            break
        chosen.append(best)
        rest.remove(best)
    return chosen


def weakest_link(strength: NDArray[np.float64]) -> tuple[NDArray[np.bool_], float]:
    """Part the view graph at the weakest link of the strongest path between views 0 and 1.

    Args:
        strength: Of the tie between each two views, symmetric (N, N), 0 for none.

    Returns:
        True for the views on view 1's side, (N,), and how strong the link is. Views tied to neither end by
        anything stronger are on the side that they are tied to better.
    """
    views = len(strength)
    reached = np.zeros(views)  # strength of the best path from view 0, by its weakest link
    reached[0] = np.inf
    parent = np.zeros(views, np.intp)
    done = np.zeros(views, bool)
    for _ in range(views):  # Prim: the maximum spanning tree holds the widest path between any two views
        view = int(np.where(done, -1.0, reached).argmax())
        done[view] = True
        for other in np.nonzero(~done)[0]:
            if strength[view, other] > reached[other]:
                reached[other], parent[other] = strength[view, other], view
    path = [1]
    while path[-1] != 0:
        path.append(int(parent[path[-1]]))
    weakest = min(path[:-1], key=lambda view: reached[view])
    beyond = np.zeros(views, bool)
    for view in range(views):
        step = view
        while step != 0 and step != weakest:
            step = int(parent[step])
        beyond[view] = step == weakest
    return beyond, float(reached[weakest])
