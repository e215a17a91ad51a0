"""When a failed attempt is followed by another one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore.submission import RetryPolicy
from parallel_agents.scheduler.retry import retries_left, retry_wait_s

POLICIES = st.builds(
    RetryPolicy,
    delay_s=st.floats(0, 86_400),
    exponential=st.booleans(),
    ceiling_s=st.floats(0.001, 86_400),
)


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(1, 5.0), (2, 10.0), (3, 20.0), (4, 40.0), (10, 2560.0), (11, 3600.0), (5000, 3600.0)]
)
def test_each_wait_is_twice_the_one_before_up_to_an_hour(failures: int, wait_s: float) -> None:
    """As the default policy says."""
    assert retry_wait_s(failures, RetryPolicy()) == wait_s


def test_without_backoff_every_wait_is_the_same() -> None:
    """And still under the ceiling."""
    assert [retry_wait_s(failures, RetryPolicy(exponential=False)) for failures in (1, 2, 30)] == [5.0, 5.0, 5.0]
    assert retry_wait_s(1, RetryPolicy(exponential=False, delay_s=9.0, ceiling_s=2.0)) == 2.0


def test_no_delay_means_no_wait() -> None:
    """Zero doubled stays zero."""
    assert [retry_wait_s(failures, RetryPolicy(delay_s=0.0)) for failures in (1, 2, 100)] == [0.0, 0.0, 0.0]


@given(st.integers(1, 10_000), POLICIES)
def test_a_wait_never_shrinks_with_failures_and_never_passes_the_ceiling(failures: int, policy: RetryPolicy) -> None:
    """Whatever the policy."""
    wait_s = retry_wait_s(failures, policy)
    assert math.isfinite(wait_s)
    assert 0 <= wait_s <= policy.ceiling_s
    assert wait_s <= retry_wait_s(failures + 1, policy)


@given(st.integers(1, 200), st.integers(0, 100))
def test_a_task_is_tried_once_and_then_as_often_as_it_may_be_retried(failures: int, max_retries: int) -> None:
    """The failure that was just counted is the one that is asked about."""
    assert retries_left(failures, max_retries, RetryPolicy(), retryable=True) == (failures <= max_retries)


def test_what_would_fail_the_same_way_is_not_tried_again() -> None:
    """Nor anything where retries are switched off."""
    assert not retries_left(1, 3, RetryPolicy(), retryable=False)
    assert not retries_left(1, 3, RetryPolicy(enabled=False), retryable=True)
