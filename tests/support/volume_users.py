"""Who uses which volume, said by a test."""


class Users:
    """Containers by the volume that they use; all of them run."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}

    def users_of_volume(self, name: str) -> list[str]:
        return self.of.get(name, [])

    running_users_of_volume = users_of_volume
