"""docs/policies.md: made from the library and recordings, and not stale."""

from keytrail.tracing import sensors
from keytrail.tracing.docs import SAMPLES, page, query
from support.recordings import CORPUS, TESTS


def test_page_is_what_its_generator_writes() -> None:
    """The committed page is the generator's output; `python -m keytrail.tracing.docs` renews it."""
    assert (TESTS.parent / "docs" / "policies.md").read_text("utf-8") == page(sensors(), CORPUS)


def test_every_policy_has_a_sample() -> None:
    """No policy is without a recorded line, no sample without a policy."""
    assert SAMPLES.keys() == sensors().keys()


def test_query_finds_both_forms_of_the_name() -> None:
    """The query takes the policy under its own name and under the operator's."""
    assert query(sensors()["sshd"]) == (
        '{service_name="keytrail"} | keytrail_event_kind=~"accept|close"'
        ' | keytrail_event_policy=~"(keytrail-)?sshd(-[0-9a-f]{10})?"'
    )
