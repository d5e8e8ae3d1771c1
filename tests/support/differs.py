"""Where the AWS of the tests is known not to be AWS."""

from dataclasses import dataclass

__all__ = ["AWS", "LOCALSTACK", "MINISTACK", "Differs"]


@dataclass(frozen=True)
class Differs:
    """Where an emulator is known to differ from AWS; a test asserts what it does instead, so a change is noticed."""

    takes_any_wait: bool = False
    """A receive with a wait below 0 or over 20 s is accepted."""
    takes_any_visibility: bool = False
    """So is one with a visibility timeout below 0 or over 12 h."""
    takes_a_limit_of_zero: bool = False
    """A receive of none is a receive of one."""
    extends_beyond_twelve_hours: bool = False
    extends_what_has_lapsed: bool = False
    """AWS: MessageNotInflight."""
    refuses_stale_deletes: bool = False
    """A delete with an old handle, or a second one, is an error; AWS answers with success."""
    deletes_with_an_old_handle: bool = False
    """AWS promises nothing but success; the message may stay."""
    deletes_fifo_with_expired_handle: bool = False
    takes_eleven_attributes: bool = False
    takes_any_attributes: bool = False
    """Empty ones, and any size: only the body counts."""
    takes_long_group_ids: bool = False
    """Longer than 128 characters."""
    forgets_attempt_ids: bool = False
    """A receive with the id of an earlier one is a new receive."""
    overtakes_a_hidden_head: bool = False
    """On FIFO, a message whose visibility was set to 0 comes before its group's hidden head."""
    heeds_no_policies: bool = False
    """What SNS publishes arrives in a queue whose policy does not allow it; nobody is denied anything."""


AWS = Differs()
MINISTACK = Differs(
    takes_any_wait=True,
    takes_any_visibility=True,
    extends_beyond_twelve_hours=True,
    extends_what_has_lapsed=True,
    refuses_stale_deletes=True,
    deletes_fifo_with_expired_handle=True,
    takes_eleven_attributes=True,
    takes_any_attributes=True,
    takes_long_group_ids=True,
    forgets_attempt_ids=True,
)
LOCALSTACK = Differs(
    takes_any_visibility=True,
    takes_a_limit_of_zero=True,
    extends_beyond_twelve_hours=True,
    extends_what_has_lapsed=True,
    deletes_with_an_old_handle=True,
    takes_eleven_attributes=True,
    forgets_attempt_ids=True,
    overtakes_a_hidden_head=True,
    heeds_no_policies=True,
)
