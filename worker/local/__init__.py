"""The embedded AWS: SNS, SQS and CloudWatch on this machine, for the demo, `run --local` and the tests."""

from worker.local.embedded import EmbeddedAws

__all__ = ["EmbeddedAws"]
