"""Turns at the network: one at a time, the case that began first before the others, and the same numbers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.monitor import Monitor
from medseg.inference.segmenter import Segmenter
from medseg.inference.turn import Turn
from tests.inference.test_segmenter import BrighterThan, ball, tiny_plan


def test_one_has_the_turn_and_the_oldest_of_those_that_wait_is_next() -> None:
    turn, order, inside = Turn(), list[int](), list[int]()
    begun = [threading.Event() for _ in range(3)]
    go = threading.Event()

    def case(number: int) -> None:
        with turn.case():
            begun[number].set()
            if number > 0:
                go.wait(10)
                time.sleep(0.1 * (3 - number))  # the later case asks first
            with turn, turn:  # again, while it holds it
                inside.append(number)
                assert inside == [number]
                if number == 0:
                    go.set()
                    time.sleep(0.6)
                order.append(number)
                inside.clear()

    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=case, args=(number,)))
        threads[-1].start()
        assert begun[number].wait(10)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2]


def test_a_case_tells_that_it_waits_and_for_how_long() -> None:
    turn, told = Turn(), list[bool]()
    held = threading.Event()

    def hold() -> None:
        with turn.case(), turn:
            held.set()
            time.sleep(0.2)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(10)
    with turn.case(told.append), turn:
        assert told == [True, False]
        assert turn.waited_s > 0.0
    other.join(10)


def test_threads_that_share_a_segmenter_get_what_one_alone_gets() -> None:
    geometry = Geometry((30, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0]))
    volumes = [ball(geometry, (50.0, 40.0, 40.0), 12.0 + 2 * number) for number in range(6)]
    segmenter = Segmenter(BrighterThan(5.0), tiny_plan(), device="cpu")
    alone = [segmenter.segment(volume)[0].array for volume in volumes]
    with ThreadPoolExecutor(3) as threads:
        shared = list(threads.map(lambda volume: segmenter.segment(volume, Monitor())[0].array, volumes))
    assert all(np.array_equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert len({int(array.sum()) for array in shared}) == 6
