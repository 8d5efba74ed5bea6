"""A training with an open end: when it decides to end, and what the learning rate does then."""

from __future__ import annotations

from itertools import pairwise

import pytest

from secateur.training.hyp import Hyp
from secateur.training.optimization import open_end
from secateur.training.optimization.open_end import LEAST_FALL, LEAST_WINDOW, OpenEnd, flattened
from secateur.training.optimization.schedules import Fall, Schedule


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(open_end, "time", clock)
    return clock


def told(end: OpenEnd, clock: Clock, losses: list[float], seconds: float = 1.0) -> list[str]:
    """What is said after each epoch, until the training is over."""
    said = []
    for done, loss in enumerate(losses, 1):
        clock.now += seconds
        said.append(end.decide(done, loss))
        if done == end.end:
            break
    return said


def test_the_rate_is_constant_until_a_decision_and_falls_along_half_a_cosine_then() -> None:
    schedule = Schedule(Hyp(lr0=1.0, lrf=0.02), epochs=100, batches=1, batch_size=1, cosine=True, falls=())
    assert [schedule.decay(epoch) for epoch in (0, 50, 99)] == [1, 1, 1]
    falling = Schedule(Hyp(lr0=1.0, lrf=0.02), 20, 1, 1, falls=(Fall(10, 20),))
    rates = [falling.decay(epoch) for epoch in range(21)]
    assert rates[:11] == [1] * 11 and rates[15] == pytest.approx(0.51) and rates[20] == pytest.approx(0.02)
    # Decided anew on the way, it falls from where it is, and nothing before changes.
    steeper = Schedule(Hyp(lr0=1.0, lrf=0.02), 17, 1, 1, falls=(Fall(10, 20), Fall(15, 17)))
    assert [steeper.decay(epoch) for epoch in range(16)] == rates[:16]
    assert steeper.decay(16) == pytest.approx((0.51 + 0.02) / 2) and steeper.decay(17) == pytest.approx(0.02)
    assert all(later <= earlier for earlier, later in pairwise(steeper.decay(epoch) for epoch in range(30)))


def test_a_loss_that_keeps_falling_is_not_flat_and_one_that_stands_is() -> None:
    falling = [100 * 0.97**epoch for epoch in range(200)]
    assert not any(flattened(falling[:epoch]) for epoch in range(200))
    power = [(1 + epoch) ** -0.3 for epoch in range(200)]  # as such losses fall
    assert not any(flattened(power[:epoch]) for epoch in range(200))
    assert not flattened([1.0] * LEAST_WINDOW) and flattened([1.0] * (LEAST_WINDOW + 1))
    assert flattened([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])  # it rises: that is no gain


def test_without_a_limit_it_ends_when_the_loss_is_flat(clock: Clock) -> None:
    end = OpenEnd(0, 1000, 0.0)
    losses = [10.0, 8, 6, 5, 4, *[3.9] * 100]
    said = told(end, clock, losses)
    [fall] = end.falls
    assert end.reason == "flattened" and len(said) == end.end == fall.end
    assert fall.end - fall.start >= LEAST_FALL and fall.start < 20
    assert [number for number, words in enumerate(said, 1) if words] == [fall.start]
    assert "is flat" in said[fall.start - 1] and "stopped falling" in end.ending()


def test_epochs_of_few_steps_have_to_be_flat_for_longer(clock: Clock) -> None:
    """Losses between two steps hardly change while the rate still rises."""
    losses = [10.0 - 0.01 * epoch for epoch in range(100)]
    short = OpenEnd(0, 1000, 0.0, stretch=4)
    told(short, clock, losses)
    [fall] = short.falls
    assert fall.start == 4 * LEAST_WINDOW + 1 and fall.end - fall.start >= 4 * LEAST_FALL


def test_the_minutes_end_it_though_the_loss_still_falls(clock: Clock) -> None:
    end = OpenEnd(2, 1000, 0.0)
    told(end, clock, [0.9**epoch for epoch in range(1000)], seconds=3.0)
    assert end.end == 40 and end.reason == "minutes" and "2 min was reached" in end.ending()
    assert end.falls == [Fall(24, 40)]


def test_a_machine_that_becomes_slow_makes_the_fall_steeper(clock: Clock) -> None:
    end, losses = OpenEnd(2, 1000, 0.0), [0.9**epoch for epoch in range(1000)]
    for done in range(1, 31):
        clock.now += 3.0 if done < 28 else 6.0
        end.decide(done, losses[done])
    assert end.end < 40 and len(end.falls) > 1
    done = 30
    while done < end.end:
        done += 1
        clock.now += 6.0
        end.decide(done, losses[done])
    assert clock.now <= 126


def test_a_single_slow_epoch_is_the_last_one(clock: Clock) -> None:
    end = OpenEnd(1, 1000, 0.0)
    clock.now = 70
    end.decide(1, 1.0)
    assert end.end == 1 and end.falls == [] and end.reason == "minutes"


def test_the_minutes_count_over_parts(clock: Clock) -> None:
    end, losses = OpenEnd(2, 1000, 0.0), [0.9**epoch for epoch in range(1000)]
    told(end, clock, losses[:20], seconds=3.0)
    state = end.state_dict()
    clock.now = 1e6
    again = OpenEnd(2, 1000, clock.now)
    again.load(state)
    assert again.seconds == 60
    for done in range(21, 41):
        clock.now += 3
        again.decide(done, losses[done])
    assert again.end == 40 and again.falls == [Fall(24, 40)]
