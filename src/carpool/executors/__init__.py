"""The places where chunks can run; `choice.executor_for` makes the one that was asked for."""
