"""Named and anonymous volumes: folders that outlive containers."""

from bennu.volumes.volume import Volume
from bennu.volumes.volumes import Volumes

__all__ = ["Volume", "Volumes"]
