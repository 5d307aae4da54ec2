"""What every engine does: it keeps values once, and runs jobs that refer to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from bequest.errors import BequestError
from bequest.sweeping.network import Network

Setup = Callable[[], object]
"""What a worker does before it reads a value, such as running the file that has the class."""


@dataclass(frozen=True)
class Reference:
    """Stands for a value that an engine keeps."""

    id: str


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        work: a function of a module.
        arguments: of it; a :class:`Reference` stands for its value.
        memory: bytes that it needs, estimated.
        on_gpu: whether it needs a GPU.
    """

    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    memory: int = 0
    on_gpu: bool = False

    @property
    def named(self) -> list[str]:
        """The ids of the values that it refers to."""
        return [one.id for one in self.arguments if isinstance(one, Reference)]


@dataclass(frozen=True)
class Failed:
    """Why a job came to nothing, in words."""

    reason: str
    exit_code: int = 1


Done = tuple[int, Any]
"""The place of a job among those that were given, and what it returned or :class:`Failed`."""


class Engine(ABC):
    """Runs jobs; to be used in a ``with`` statement, which ends its workers."""

    workers: int
    """How many jobs run at once."""

    carries: bool = True
    """Whether values leave this process."""

    @abstractmethod
    def put(self, value: Any) -> Reference:
        """Keeps a value for all jobs.

        Raises:
            UsageError: it can't be carried to where jobs run.
        """

    def memory_of(self, network: Network) -> int:
        """Bytes that a job on the network asks for; 0 where nobody looks at it."""
        return 0

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Runs jobs, and gives what becomes of each as soon as that is known, in any order."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends what still runs."""


@dataclass
class Worker:
    """What a worker process keeps from job to job.

    Attributes:
        setup: what is done before the first job.
        held: the values that the last job referred to, by their ids.
    """

    setup: Setup | None
    held: dict[str, Any] = field(default_factory=dict)

    def perform(
        self,
        named: Mapping[str, Callable[[], Any]],
        work: Callable[..., Any],
        arguments: Sequence[Any],
    ) -> Any:
        """Runs a job; ``named`` gives the values that it refers to, where they aren't held."""
        return attempted(self._perform, (named, work, arguments))

    def _perform(
        self,
        named: Mapping[str, Callable[[], Any]],
        work: Callable[..., Any],
        arguments: Sequence[Any],
    ) -> Any:
        if self.setup is not None:
            self.setup()
            self.setup = None
        self.held = {id: value for id, value in self.held.items() if id in named}
        for id in named.keys() - self.held.keys():
            self.held[id] = named[id]()
        return work(*resolved(arguments, self.held))


def resolved(arguments: Sequence[Any], held: Mapping[str, Any]) -> list[Any]:
    """The arguments of a job with values in the place of references."""
    return [held[one.id] if isinstance(one, Reference) else one for one in arguments]


def attempted(work: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What the work returns, or how it fails: other jobs go on."""
    try:
        return work(*arguments)
    except BequestError as error:
        return Failed(str(error), error.exit_code)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        return Failed(f"unexpected {type(error).__name__}: {first}".removesuffix(": "))


def uncarried(value: Any, error: Exception) -> str:
    """What to say of a value that can't be carried to another process."""
    what = getattr(value, "name", type(value).__name__)
    first = next(iter(str(error).splitlines()), "")
    return (
        f"{what} can't be carried to other processes ({type(error).__name__}: {first}); define its "
        "classes in a module that can be imported, or use one worker"
    )
