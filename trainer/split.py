"""What is held out: decided by keyed hashes of what was said, so that it stays decided however the data grows.

Each conversation draws a number from its own text. Those that draw below the held-out share are held out, and with
each of them its whole cluster: its duplicates and what begins as it does. A cluster only ever grows, so what was held
out once stays held out.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from personas.errors import MaterialError

HELD_OUT = "held out"


def drawn(purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but purpose and text: the same on every machine, for ever."""
    digest = hmac.digest(f"understudy {purpose}".encode(), text.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:7], "big") / 2**56


def held_out(
    draws: Sequence[float], clusters: NDArray[np.int64], share: float, besides: Collection[float] = ()
) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    """Which conversations are held out, from each one's draw (`drawn(HELD_OUT, …)`) and cluster.

    Where one side would stay empty, the cluster that came nearest to the border changes over. A draw that was held out
    so is given back, to be handed in as one of `besides` when the data has grown: it stays held out then. Raises
    `MaterialError` for a single cluster.
    """
    own = np.asarray(draws, dtype=float)
    lowest = np.full(len(clusters), np.inf)
    np.minimum.at(lowest, clusters, np.where(np.isin(own, list(besides)), 0.0, own))
    of_clusters = np.sort(lowest[np.isfinite(lowest)])
    if len(of_clusters) < 2:
        found = "only one conversation" if len(of_clusters) else "no conversation in which somebody is answered"
        raise MaterialError(f"There is {found}; learning and measuring need one each.", "Give more of them.")
    count = min(max(int((of_clusters < share).sum()), 1), len(of_clusters) - 1)
    side: NDArray[np.bool_] = lowest[clusters] <= of_clusters[count - 1]
    kept = [float(draw) for draw in own[side & np.isin(own, [*besides, *of_clusters[of_clusters >= share]])]]
    return side, tuple(sorted(set(kept)))
