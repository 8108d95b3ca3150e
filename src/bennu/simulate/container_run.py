"""Running the histories of single containers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bennu.simulate.container_laws import ContainerLaws
from bennu.simulate.container_scenario import ContainerScenario


class ContainerSeedFailed(AssertionError):
    """The error of a seed that broke a law; the message holds the command that replays it."""

    def __init__(self, seed: int, error: BaseException) -> None:
        super().__init__(f"seed {seed}: {error}\nreplay: python -m bennu.simulate --containers --seed {seed}")
        self.seed = seed


@dataclass(slots=True)
class ContainerTotals:
    """The counts over all histories. `cells`: state and event; `cuts`: event, and after how many instructions."""

    seeds: int = 0
    checks: int = 0
    daemon_deaths: int = 0
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    cuts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.seeds} histories of a container: {self.checks} checks of the laws, {self.daemon_deaths} deaths of "
            f"the daemon, {len(self.cuts)} places to die at, {len(self.cells)} cells of the table"
        )


def run_container_seed(seed: int, *, verbose: bool = False) -> ContainerLaws:
    """Play one history. Raises: ContainerSeedFailed, from the broken law or the core's own error."""
    try:
        return ContainerScenario(seed, verbose=verbose).run()
    except Exception as error:
        raise ContainerSeedFailed(seed, error) from error


def run_container_seeds(seeds: Iterable[int]) -> ContainerTotals:
    """Play many histories; stop at the first that fails."""
    totals = ContainerTotals()
    for seed in seeds:
        laws = run_container_seed(seed)
        totals.seeds += 1
        totals.checks += laws.checks
        totals.daemon_deaths += laws.daemon_deaths
        totals.cells += laws.cells
        totals.cuts += laws.cuts
    return totals
