"""One queue's pipeline: receive, dispatch, lease, execute, settle. `consumer.py` is the only file that wires the stages."""
