"""Image references, as far as the command line has to read them."""


def split_reference(image: str) -> tuple[str, str]:
    """(name, tag or digest); the second is "" when there is none."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, ""
    return head, tag
