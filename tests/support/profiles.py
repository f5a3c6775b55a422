"""How many examples property tests draw: a fixed, small number in `make test`, many at random in `make fuzz`.

The profile is that of --hypothesis-profile, or of the variable HYPOTHESIS_PROFILE, or "test". A counterexample that
`make fuzz` finds becomes an `@example` of its test, so that `make test` knows it from then on.
"""

import os

from hypothesis import HealthCheck, settings

MORE = 20
"""So many times the examples of `make test` are drawn by `make fuzz`."""


def register() -> None:
    """Make the profiles known to hypothesis, and take the one that is asked for."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile(
        "test", derandomize=True, database=None, deadline=None, max_examples=25, suppress_health_check=slow
    )
    settings.register_profile(
        "fuzz", deadline=None, max_examples=25 * MORE, print_blob=True, suppress_health_check=slow
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


def examples(count: int) -> settings:
    """`@examples(5)`: the test draws 5 examples, in `make fuzz` more; the profile decides all else."""
    fixed = settings.get_profile("test").max_examples
    return settings(max_examples=count * settings().max_examples // fixed)
