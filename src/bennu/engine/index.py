"""All containers of one host, by id and by name, and the users of their images and volumes. It never acts or writes."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, Generic, Protocol, TypeVar

from bennu.engine.names import random_name
from bennu.engine.record import Record
from bennu.engine.remains import Remains
from bennu.errors import Conflict, InvalidParameter, NotFound

NAME_TRIES: Final = 6


class Indexed(Protocol):
    """The part of a container that the index needs."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> Record: ...


C = TypeVar("C", bound=Indexed)


class ContainerIndex(Generic[C]):
    """The containers of one host, and the remains of the containers with an unreadable record."""

    def __init__(self) -> None:
        self._containers: dict[str, C] = {}
        self._names: dict[str, C] = {}
        self._reserved: set[str] = set()
        self._aside: dict[str, Remains] = {}  # by id

    def find(self, ref: str) -> C:
        """Find by full id, name (with or without `/`), link (`OWNER/ALIAS`), or unique prefix of the id, in this order.

        Raises: NotFound; InvalidParameter when empty or ambiguous.
        """
        if not ref:
            raise InvalidParameter('invalid name or ID supplied: ""')
        name = ref.removeprefix("/")
        found = self._containers.get(ref) or self._names.get(name) or self._find_link(name)
        if found:
            return found
        matches = [container for key, container in self._containers.items() if key.startswith(ref)]
        if not matches:
            raise NotFound(f"No such container: {ref}")
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        return matches[0]

    def _find_link(self, name: str) -> C | None:
        """Find what a container calls another one, as `OWNER/ALIAS`."""
        owner, slash, alias = name.partition("/")
        if not slash or owner not in self._names:
            return None
        return self._containers.get(self._names[owner].record.links.get(alias, ""))

    def list(self) -> list[C]:
        """List all containers, newest first."""
        return sorted(self._containers.values(), key=lambda container: -container.record.created_ns)

    @property
    def ids(self) -> Collection[str]:
        """The ids of all containers that can be found, as a live view."""
        return self._containers.keys()

    @property
    def known(self) -> set[str]:
        """The ids of all containers, including the set-aside ones."""
        return {*self._containers, *self._aside}

    # --- coming and going -------------------------------------------------------------------------------------------

    def add(self, container: C) -> None:
        self._containers[container.id] = container
        self._names[container.record.name] = container

    def forget(self, container_id: str) -> None:
        """Drop a container that is gone from the disk."""
        if (container := self._containers.pop(container_id, None)) is not None:
            self._names.pop(container.record.name, None)

    def leave_aside(self, container: C, remains: Remains) -> None:
        """Drop a container whose record is set aside, but keep its remains reserved for it."""
        self.forget(container.id)
        self.note_aside({container.id: remains})

    def note_aside(self, found: dict[str, Remains]) -> None:
        """Add the remains, by id, of containers that are set aside already."""
        self._aside |= found

    # --- names ------------------------------------------------------------------------------------------------------

    @contextmanager
    def reserved(self, name: str | None, container_id: str) -> Iterator[str]:
        """Reserve the name, or a free one for None, while the container is made. Raises: Conflict."""
        if name is not None:
            self.check_name_free(name)
        else:
            tries = (random_name() for _ in range(NAME_TRIES))
            name = next((draw for draw in tries if not self._is_taken(draw)), container_id[:12])
        self._reserved.add(name)
        try:
            yield name
        finally:
            self._reserved.discard(name)

    def check_name_free(self, name: str) -> None:
        """Check that no container has the name. Raises: Conflict with Docker's words."""
        if self._is_taken(name):
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._holder(name)}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def _is_taken(self, name: str) -> bool:
        return name in self._reserved or bool(self._holder(name))

    def _holder(self, name: str) -> str:
        """Return the id of the container that has this name; "" if none has."""
        if name in self._names:
            return self._names[name].id
        return next((container_id for container_id, remains in self._aside.items() if remains.name == name), "")

    def rename(self, container: C, name: str) -> None:
        for former in [former for former, holder in self._names.items() if holder is container]:
            del self._names[former]  # more than one if two clients rename at the same time
        self._names[name] = container

    # --- who uses what; one whose record is set aside may run -------------------------------------------------------

    def users_of_image(self, image_id: str) -> builtins.list[tuple[str, bool]]:
        """List the containers that are made from this image or have it mounted: the id of each, and whether it runs."""
        users = [
            (container.id, container.record.running)
            for container in self._containers.values()
            if image_id in container.record.image_ids
        ]
        return users + [
            (key, True)
            for key, remains in self._aside.items()
            if image_id == remains.image_id or image_id in remains.mounted_images
        ]

    def users_of_volume(self, name: str) -> builtins.list[str]:
        """List the ids of the containers that use this volume."""
        return self._users_of_volume(name, lambda container: True)

    def running_users_of_volume(self, name: str) -> builtins.list[str]:
        """List the ids of the running containers that use this volume."""
        return self._users_of_volume(name, lambda container: bool(container.record.pid))

    def _users_of_volume(self, name: str, fits: Callable[[C], bool]) -> builtins.list[str]:
        users = [
            container.id
            for container in self._containers.values()
            if fits(container)
            and any(point.type == "volume" and point.name == name for point in container.record.mounts)
        ]
        return users + [key for key, remains in self._aside.items() if name in remains.volumes]
