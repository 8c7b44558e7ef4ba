# SPDX-License-Identifier: Apache-2.0
"""Several processes that share what is asked, as `accelerate launch` starts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pose_bridge.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import PartialState

PATIENCE = timedelta(days=7)  # until the slowest has answered its share


@dataclass(frozen=True, eq=False)
class Share:
    """A process's place among all.

    Attributes:
        index: From 0.
        count: Of all.
    """

    index: int = 0
    count: int = 1
    _state: PartialState | None = None

    def wait(self) -> None:
        """Until all processes have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()


def share() -> Share:
    """Return this process's place among those of `accelerate launch`, or that it is the only one.

    It also says which GPU is this process's own, so models are loaded after it.

    Raises:
        ConfigError: There are several, and they do not find each other: they would all ask the same.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return Share()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=True, timeout=PATIENCE)  # all they do together is wait; GPUs may be fewer
    if torch.cuda.is_available():
        torch.cuda.set_device(state.local_process_index % torch.cuda.device_count())
    if state.num_processes != processes:
        raise ConfigError(f"{processes} processes were launched, but {state.num_processes} found each other")
    return Share(state.process_index, state.num_processes, state)
