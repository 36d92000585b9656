"""Workers of a Ray cluster in the place of this machine's lanes: each pulls the next members when it is free.

A worker is an actor with one core, or one GPU where there are some. The data go to the object store once, and from there
to each node once; a worker is sent members and gives back scores. One that dies is replaced, and its members are trained
again by the next that is free: what becomes of a member does not depend on who trains it.
"""

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle

from regularity.population import _worker
from regularity.population._tasks import Outcome, Plan, Task
from regularity.population._train import Trainer

_DEATHS = 3  # of workers with the same members: then these are to blame
_PATIENCE = 120.0  # seconds without any worker


@dataclass
class _Piece:
    """Members that one worker trains at once."""

    tasks: list[Task]
    advance: Callable[[int], None]
    done: "Future[list[Outcome]]" = field(default_factory=Future)
    deaths: int = 0


class Cluster:
    """All workers of a cluster, as a pool and a trainer in one.

    Args:
        model: The user's.
        plan: How members train.
        members: How many to expect in the largest run.
        sizes: As of a `Trainer`.

    Raises:
        ImportError: If Ray is not installed.
        RuntimeError: If the cluster has neither a core nor a GPU.
    """

    def __init__(self, model: Any, plan: Plan, members: int, sizes: dict[str, int]) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("`engine='ray'` needs Ray. Try: pip install 'regularity[ray]'") from error
        self._ray, self._mine = ray, not ray.is_initialized()
        if self._mine:  # that of RAY_ADDRESS, one that runs on this machine, or a new one
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._here = Trainer(model, plan, members, sizes)  # says how many train together; nothing trains here
        self._model, self._plan, self._members, self._sizes = model, replace(plan, checkpoints=None), members, sizes
        self._sent: Any = None
        self._pieces: deque[_Piece] = deque()
        self._starting: dict[Any, Any] = {}  # workers by what says that they are ready
        self._running: dict[Any, tuple[Any, _Piece]] = {}
        self._idle: list[Any] = []
        self._place_of: dict[Any, dict[str, Any]] = {}
        self._came_up: set[Any] = set()  # workers that have been ready
        self._stillborn = 0  # workers in a row that died before they were
        self._lost: Exception | None = None  # why no others are started
        self._changed, self._stopped = threading.Condition(), False
        self.lanes = self._places()
        self._thread = threading.Thread(target=self._dispatch, name="cluster", daemon=True)

    def _places(self) -> list[dict[str, Any]]:
        """What each worker asks of the cluster, and which core of its machine it keeps to."""
        found, cores = [], {}
        for node in self._ray.nodes():
            if not node["Alive"]:
                continue
            has, address = node["Resources"], node["NodeManagerAddress"]
            gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
            for _ in range(gpus or cpus):
                core = cores[address] = cores.get(address, -1) + 1
                asks = {"num_gpus": 1, "num_cpus": min(cpus, 1)} if gpus else {"num_cpus": 1}
                found.append({"asks": asks, "core": None if gpus else core, "node": node["NodeID"]})
        if not found:
            raise RuntimeError(
                f"Expected a Ray cluster with a core or a GPU. Received: {self._ray.cluster_resources()}"
            )
        return found

    @property
    def devices(self) -> str:
        """How many workers on how many machines."""
        return f"{len(self.lanes)} workers of Ray on {len({place['node'] for place in self.lanes})} nodes"

    # -- as a trainer ----------------------------------------------------------------------------------------------

    def chunk(self, tasks: Sequence[Task]) -> int:
        """How many members train together, on every worker: their results are the same then."""
        size = self._here.chunk(tasks)
        if self._sent is None:
            # as bytes, since a worker can import what the user wrote only when it knows where to look
            self._sent = self._ray.put(cloudpickle.dumps((_worker.packed(self._model), self._plan, self._members)))
            for place in self.lanes:
                self._start(place)
            self._thread.start()
        return size

    def submit(self, tasks: Sequence[Task], pool: Any, advance: Callable[[int], None]) -> Callable[[], list[Outcome]]:
        """Queue tasks for the workers, and return what waits for their outcomes."""
        if self._sent is None:
            self.chunk(tasks)  # starts the workers
        pieces = []
        for members, filled in self._here.chunks(tasks):
            pieces.append((members, _Piece(filled, advance)))
        with self._changed:
            self._pieces.extend(piece for _, piece in pieces)
            self._changed.notify()

        def wait() -> list[Outcome]:
            found = {}
            for members, piece in pieces:
                found.update(zip(members, piece.done.result(), strict=True))
            return [found[i] for i in range(len(found))]

        return wait

    def forget(self, tasks: Sequence[Task]) -> None:
        """Nothing: what is in training is not written."""

    # -- as a pool -------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        for worker in [*self._idle, *self._starting.values(), *(worker for worker, _ in self._running.values())]:
            self._ray.kill(worker)
        if self._mine:
            self._ray.shutdown()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _start(self, place: dict[str, Any], anywhere: bool = False) -> None:
        """Ask for a worker; it takes its place when it says that it is ready."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = "DEFAULT" if anywhere else NodeAffinitySchedulingStrategy(place["node"], soft=True)
        environment = {"env_vars": {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}}
        kind = self._ray.remote(_Trains).options(
            **place["asks"], scheduling_strategy=strategy, runtime_env=environment, max_restarts=0
        )
        worker = kind.remote(self._sent, place["core"], [path for path in sys.path if path])
        self._place_of[worker] = place | {"node": None} if anywhere else place  # it says where it came up
        self._starting[worker.ready.remote()] = worker

    def _dispatch(self) -> None:
        """Give members to whoever is free, until there is nothing more to come; runs in a thread of its own."""
        try:
            self._hand_out()
        except Exception as error:  # nobody else would tell those who wait
            for _, piece in self._running.values():
                piece.done.set_exception(error)
            self._fail(error)

    def _hand_out(self) -> None:
        alone = 0.0
        while True:
            with self._changed:
                if not (self._pieces or self._running or self._starting or self._stopped):
                    self._changed.wait()
                if self._stopped:
                    return
                while self._idle and self._pieces:
                    # neither is taken away before it is under way: what goes wrong is told to all who wait
                    worker, piece = self._idle[-1], self._pieces[0]
                    self._running[worker.train.remote(piece.tasks, dict(self._sizes))] = (worker, piece)
                    self._idle.pop()
                    self._pieces.popleft()
            pending = [*self._running, *self._starting]
            if self._lost is not None and not (pending or self._idle):
                self._fail(self._lost)
                continue
            ready, _ = self._ray.wait(pending, num_returns=1, timeout=0.05) if pending else ([], [])
            alone = 0.0 if self._running or self._idle else alone + 0.05
            for answer in ready:
                self._take(answer)
            if alone > _PATIENCE:
                self._fail(RuntimeError(f"No worker of the cluster has come up for {_PATIENCE:.0f} seconds."))
                alone = 0.0

    def _take(self, answer: Any) -> None:
        """Note what a worker says, or that it is lost."""
        errors = self._ray.exceptions
        worker, piece = self._running.pop(answer, (None, None))
        if piece is None:
            worker = self._starting.pop(answer)
        try:
            said = self._ray.get(answer)
        except (errors.RayTaskError, errors.RaySystemError, errors.UnserializableException) as error:
            # the model's own: it would fail again
            self._idle.append(worker)
            if piece is None:
                self._fail(error)
            else:
                piece.done.set_exception(getattr(error, "cause", None) or error)
        except errors.RayError as error:  # it died, or what it said got lost on the way
            try:
                self._lose(worker, piece, error)
            except Exception as unknown:
                if piece is not None:
                    piece.done.set_exception(unknown)
                raise
        else:
            self._idle.append(worker)
            self._stillborn = 0
            if piece is None:
                self._came_up.add(worker)
                self._place_of[worker] = self._place_of[worker] | {"node": said}
            else:
                piece.done.set_result(said)
                piece.advance(sum(task.epochs for task in piece.tasks))

    def _lose(self, worker: Any, piece: _Piece | None, error: Exception) -> None:
        """Have another take the place of a worker that is lost, and train what it trained."""
        place, came_up = self._place_of.pop(worker), worker in self._came_up
        self._came_up.discard(worker)
        with contextlib.suppress(Exception):  # it may be dead, or not
            self._ray.kill(worker)
        # a machine that is gone says nothing against what ran on it
        gone = place["node"] is not None and not any(
            n["Alive"] and n["NodeID"] == place["node"] for n in self._ray.nodes()
        )
        if piece is None and not came_up and not gone:
            self._stillborn += 1
            if self._stillborn > _DEATHS:
                self._lost = RuntimeError(f"Workers of the cluster die while they start: {error}")
                return
        self._start(place, anywhere=True)
        # those that are idle may have been lost with it: who answers is idle again
        for other in self._idle:
            self._starting[other.ready.remote()] = other
        self._idle.clear()
        if piece is None:
            return
        piece.deaths += not gone
        if piece.deaths < _DEATHS:
            with self._changed:
                self._pieces.appendleft(piece)
        else:
            said = f"{_DEATHS} workers of the cluster died while they trained the same members: {error}"
            piece.done.set_exception(RuntimeError(said))

    def _fail(self, error: Exception) -> None:
        """Tell all who wait."""
        with self._changed:
            waiting, self._pieces = list(self._pieces), deque()
        for piece in waiting:
            piece.done.set_exception(error)


class _Trains:
    """One worker, in a process of its own.

    Args:
        sent: The model as `_worker.packed` has it, the plan, and how many members to expect.
        core: Which of its machine's cores it keeps to, or None.
        paths: Where the driver finds modules; those that are not on this machine do no harm.
    """

    def __init__(self, sent: bytes, core: int | None, paths: Sequence[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]
        if core is not None and hasattr(os, "sched_setaffinity"):  # before JAX counts them
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[core % len(cores)]})
        model, plan, members = cloudpickle.loads(sent)
        self._sizes: dict[str, int] = {}
        self._trainer = Trainer(_worker.unpacked(model), plan, members, self._sizes)

    def ready(self) -> str:
        """Answer when it has come up, with the node that it is on."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def train(self, tasks: list[Task], sizes: dict[str, int]) -> list[Outcome]:
        """Train members, as many together as the driver says."""
        self._sizes.update(sizes)
        return self._trainer.train_here(tasks, lambda epochs: None)
