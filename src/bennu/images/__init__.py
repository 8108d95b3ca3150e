"""Images of one host: content, layers and names; how images come in, go out and become root filesystems."""

from bennu.images.image import Image
from bennu.images.images import Images

__all__ = ["Image", "Images"]
