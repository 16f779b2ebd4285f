"""The queue and its loop, on a fake pool: workers whose trainings take seconds of a fake clock."""

from dataclasses import dataclass, field

import pytest

from bench.runner.executors.queue import RETRIES, Queue, spread
from bench.runner.jobs import Outcome


@dataclass(eq=False)
class FakeJob:
    """A job of tickets, each of which needs the dense network and the ticket before it, or nothing at all."""

    name: str
    group: str
    chain: list[str]
    controls: int = 0
    needs_dense: bool = True

    @property
    def width(self):
        return (1 + self.controls) * (1 if self.needs_dense else len(self.chain))

    def failed(self, error):
        return Outcome(self, [], error)

    def keys(self):
        """Every key in the order of a walk, and the ones it needs."""
        before = [self.group] if self.needs_dense else []
        for key in self.chain:
            yield key, list(before)
            for control in range(self.controls):
                yield f"{key} control {control}", list(before)
            before = [self.group, key] if self.needs_dense else before


@dataclass
class FakePool:
    """Workers that walk through fake jobs as run_job walks through real ones; a training takes a second."""

    workers: int
    done: set[str] = field(default_factory=set)
    running: dict[int, tuple] = field(default_factory=dict)
    clock: float = 0.0
    idle: float = 0.0
    trained: list[tuple[str, int]] = field(default_factory=list)
    deaths: dict[str, int] = field(default_factory=dict)

    def is_held(self, key):
        return any(key == held for _, _, held, _ in self.running.values())

    def free(self):
        return len(self.running) < self.workers

    def start(self, job):
        who = next(w for w in range(self.workers) if w not in self.running)
        self.running[who] = (job, self.walk(job), None, self.clock)
        self.go_on(who)

    def walk(self, job):
        """Yields the keys it trains; returns what others held."""
        held, wanted = set(), [(job.group, []), *job.keys()]
        for key, needs in wanted:
            missing = [need for need in needs if need not in self.done]
            if missing:
                held |= set(missing)
                break  # the method itself cannot go on
            if key not in self.done:
                if self.is_held(key):
                    held.add(key)
                else:
                    yield key
        return held if not all(key in self.done for key, _ in wanted) else set()

    def go_on(self, who):
        job, walk, key, _ = self.running[who]
        if key:
            self.done.add(key)
        try:
            self.running[who] = (job, walk, None, self.clock)
            self.running[who] = (job, walk, next(walk), self.clock + 1)
            self.trained.append((self.running[who][2], who))
        except StopIteration as stop:
            self.running[who] = (job, stop.value, None, self.clock)

    def finished(self, seconds):
        over = [(who, entry) for who, entry in self.running.items() if entry[2] is None]
        for who, _ in over:
            del self.running[who]
        if over:
            return [(job, self.outcome(job, held)) for _, (job, held, _, _) in over]
        if not self.running:
            raise AssertionError("nobody works, and nothing is finished")
        self.idle += (self.workers - len(self.running)) * (min(e[3] for e in self.running.values()) - self.clock)
        self.clock = min(entry[3] for entry in self.running.values())
        for who in [who for who, entry in self.running.items() if entry[3] <= self.clock]:
            self.go_on(who)
        return []

    def outcome(self, job, held):
        if self.deaths.get(job.name, 0) > 0:
            self.deaths[job.name] -= 1
            return None
        return Outcome(job, [], held=frozenset(held))

    def close(self):
        pass


class Silent:
    def update(self, queue):
        pass


def run(monkeypatch, pool, jobs):
    """Outcomes of a spread over the pool."""

    class FakeStore:
        def __init__(self, root):
            self.held = pool.is_held

    monkeypatch.setattr("bench.storage.stages.Store", FakeStore)
    for job in jobs:
        job.setting = type("Setting", (), {"config": {"store": ""}})
    return list(spread(jobs, pool, Silent()))


def test_nobody_waits_for_the_dense_network_of_four_methods(monkeypatch):
    jobs = [
        FakeJob("imp", "dense", ["i1", "i2"]),
        FakeJob("one_shot", "dense", ["i1", "o2"]),
        FakeJob("snip", "dense", ["s1", "s2"], needs_dense=False),
        FakeJob("synflow", "dense", ["y1", "y2"], needs_dense=False),
    ]
    pool = FakePool(2)
    outcomes = run(monkeypatch, pool, jobs)
    assert {outcome.job.name for outcome in outcomes} == {"imp", "one_shot", "snip", "synflow"}
    assert len(pool.trained) == len({key for key, _ in pool.trained}) == 8  # 1 + i1, i2, o2, s1, s2, y1, y2
    assert pool.clock == 4
    assert pool.idle == 0


def test_tickets_and_controls_of_one_job_spread_over_the_workers(monkeypatch):
    pool = FakePool(2)
    assert len(run(monkeypatch, pool, [FakeJob("imp", "dense", [f"i{n}" for n in range(5)], controls=3)])) == 1
    assert len(pool.trained) == len({key for key, _ in pool.trained}) == 1 + 5 * 4
    assert pool.clock == 11  # of 21 alone; the second worker waits for the dense network only
    assert pool.idle == 1


def test_the_first_wave_starts_distinct_dense_networks(monkeypatch):
    jobs = [FakeJob(f"{method} {seed}", f"dense {seed}", [f"{method} {seed}"]) for seed in range(3) for method in "ab"]
    pool = FakePool(3)
    run(monkeypatch, pool, jobs)
    assert {key for key, _ in pool.trained[:3]} == {"dense 0", "dense 1", "dense 2"}
    assert pool.clock == 3


def test_a_dead_worker_costs_its_job_a_retry_and_no_other_job_anything(monkeypatch):
    jobs = [FakeJob(name, name, [f"{name} ticket"]) for name in ("sick", "deadly", "well")]
    pool = FakePool(2, deaths={"sick": RETRIES, "deadly": RETRIES + 1})
    errors = {outcome.job.name: outcome.error for outcome in run(monkeypatch, pool, jobs)}
    assert errors["sick"] is errors["well"] is None
    assert "its process was killed, perhaps for memory: run the same command again" in errors["deadly"]


def test_a_job_that_waits_is_offered_when_its_stage_is_free():
    held = {"k"}
    one, other = FakeJob("one", "g", []), FakeJob("other", "h", [])
    queue = Queue([one, other], held.__contains__)
    assert queue.next() is one
    assert queue.ended(one, Outcome(one, [], held=frozenset("k"))) is None
    assert queue.next() is other
    assert queue.next() is None
    held.clear()
    assert queue.next() is one
    assert queue.ended(one, Outcome(one, [])).job is one
    assert queue.ended(other, Outcome(other, [], "broken")).error == "broken"
    assert not queue


@pytest.mark.parametrize("error", [None, "broken"])
def test_what_comes_late_of_a_finished_job_is_dropped(error):
    job = FakeJob("one", "g", [], controls=1)
    queue = Queue([job], lambda key: False)
    assert queue.next() is queue.next() is job
    assert queue.next() is None  # it has two networks at most that can be trained at a time
    assert queue.ended(job, Outcome(job, [], error))
    assert queue.ended(job, Outcome(job, [])) is None
