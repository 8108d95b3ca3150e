"""Named and anonymous volumes: folders that outlive containers."""

from bennu.volumes.volumes import Volume, Volumes

__all__ = ["Volume", "Volumes"]
