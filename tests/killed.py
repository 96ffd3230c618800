"""`python tests/killed.py RAW OUTPUT KILLS SEED`: prepares a folder once unbroken, and once killed
at random moments and begun again, in OUTPUT/unbroken and OUTPUT/broken.

`... RAW OUTPUT KILLS SEED pool`: prepares OUTPUT by two processes, one of which, or their parent,
is killed at random moments.

Prints how many runs were killed. A run is a forked process: importing takes longer than working.
"""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from coded import RESOLUTION, make_detector
from latentsync.prepare import (
    Dedupe,
    Limit,
    LocalExecutor,
    Recipe,
    SerialExecutor,
    Split,
    prepare_clips,
)
from latentsync.prepare.executors import Executor

SYNCNET = Path(__file__).parents[1] / "experiments" / "demo" / "model" / "syncnet"
LOST = 3  # exit status of a run whose worker was killed
LONGEST_SHARE = 0.1  # of an unbroken run's time, the longest before a kill: a run gets half as far


class KilledPool(LocalExecutor):
    """Kills the whole group of processes after some results, while workers are at others."""

    def __init__(self, after: int) -> None:
        super().__init__(num_workers=2)
        self.after = after

    def run(self, make_work: Callable, items: list) -> Iterator:
        for number, result in enumerate(super().run(make_work, items), start=1):
            yield result
            if number == self.after:
                os.killpg(0, signal.SIGKILL)


def prepare(raw: Path, output: Path, executor: Executor | None = None) -> None:
    syncnet = SYNCNET if SYNCNET.is_dir() else None
    recipe = Recipe(make_detector=make_detector, resolution=RESOLUTION, syncnet=syncnet)
    prepare_clips(
        raw,
        output,
        stages=recipe.stages(),
        limits={"loudest_db": Limit(min=-50, stage="sound")},
        rules=[Dedupe(max_picture=0.2, max_sound=0.25), Split(val=0.3, seed=0)],
        executor=executor or SerialExecutor(),
    )


def forked(work: Callable[[], None], *, cpu_seconds: float | None = None) -> bool:
    """Whether a run in a process of its own was killed, after so many seconds of work if given."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if cpu_seconds is not None:
            # Ends the process where it is, as SIGKILL does; counts its work, not the others'.
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a run ended with an error, which is written above")
    return os.WIFSIGNALED(status)


def main(raw: Path, output: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    forked(lambda: prepare(raw, output / "unbroken"))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    longest = LONGEST_SHARE * (usage.ru_utime + usage.ru_stime)
    broken = output / "broken"
    killed = [
        forked(lambda: prepare(raw, broken), cpu_seconds=rng.uniform(0.01, longest))
        for _ in range(kills)
    ]
    forked(lambda: prepare(raw, broken))
    sys.stdout.write(f"killed {sum(killed)}\n")


class Moment:
    """Some sources after now, and a little later."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.record = folder / "record.jsonl"
        self.wanted = self._count() + rng.randint(1, 2)
        self.seconds = rng.uniform(0, 0.5)

    def _count(self) -> int:
        return self.record.read_bytes().count(b"\n") if self.record.is_file() else 0

    def come(self) -> bool:
        if self._count() < self.wanted:
            return False
        time.sleep(self.seconds)
        return True


def workers_of(pid: int) -> list[int]:
    """The processes that a pool has started (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    started = ((int(child), Path(f"/proc/{child}/cmdline").read_bytes()) for child in children)
    return [child for child, command in started if b"spawn_main" in command]


def struck(work: Callable[[], None], moment: Moment, choose: Callable[[int], int]) -> bool:
    """Whether a process was killed while a run was going on; `choose` takes the run's process."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except OSError as error:
            os._exit(LOST if "a worker process died" in str(error) else 1)
        os._exit(0)
    status = None
    while status is None:
        ended, status_now = os.waitpid(pid, os.WNOHANG)
        if ended:
            status = status_now
        elif moment.come():
            with suppress(ProcessLookupError):
                os.kill(choose(pid), signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, LOST, -signal.SIGKILL), code
    return code != 0


def main_struck(raw: Path, output: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)

    def run() -> None:
        prepare(raw, output, LocalExecutor(num_workers=2))

    def choose(pid: int) -> int:
        return rng.choice([pid, *workers_of(pid)])

    killed = [struck(run, Moment(output, rng), choose) for _ in range(kills)]
    forked(run)
    sys.stdout.write(f"killed {sum(killed)}\n")


def main_pool(raw: Path, output: Path) -> None:
    killed = forked(lambda: prepare(raw, output, KilledPool(after=3)))
    forked(lambda: prepare(raw, output, LocalExecutor(num_workers=2)))
    sys.stdout.write(f"killed {int(killed)}\n")


if __name__ == "__main__":
    if len(sys.argv) > 5:
        main_struck(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif len(sys.argv) > 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main_pool(Path(sys.argv[1]), Path(sys.argv[2]))
