"""When a failed attempt is followed by another one."""

from __future__ import annotations

from parallel_agents.eventstore.submission import RetryPolicy

JITTER = 0.1  # At most a tenth of the wait, so that tasks that failed together do not all come back together.


def retry_wait_s(failures: int, policy: RetryPolicy) -> float:
    """How long a task rests before its next attempt.

    No jitter here: a replay must give the same time. The jitter is drawn once and recorded in the event.

    Args:
        failures: attempts that have failed so far, >= 1.
        policy: first wait in seconds, whether it doubles, and its ceiling.
    Returns:
        Seconds: delay_s * 2**(failures - 1), at most policy.ceiling_s; delay_s alone where it does not double.
    Source: binary exponential backoff, Metcalfe & Boggs 1976.
    """
    if not policy.exponential:
        return min(policy.delay_s, policy.ceiling_s)
    doublings = min(failures - 1, 64)  # Far beyond any ceiling; keeps the float finite.
    return min(policy.delay_s * 2.0**doublings, policy.ceiling_s)


def retries_left(failures: int, max_retries: int, policy: RetryPolicy, *, retryable: bool) -> bool:
    """Whether an attempt that just failed (counted in ``failures``) may be followed by another."""
    return retryable and policy.enabled and failures <= max_retries
