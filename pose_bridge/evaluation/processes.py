# SPDX-License-Identifier: Apache-2.0
"""Several processes that share what is asked, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from pose_bridge.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(days=7)  # until the slowest has answered its share


def share() -> PartialState | None:
    """Return this process's place among the others; None if there is only one.

    It also says which GPU is this process's own, so models are loaded after it.

    Raises:
        ConfigError: There are several, and they do not find each other: they would all ask the same.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return None
    import torch
    from accelerate import PartialState

    place = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if place.num_processes != processes:
        raise ConfigError(f"{processes} processes were launched, but {place.num_processes} found each other")
    return place
