"""A training shared among machines: each takes steps on its part of the data, and they agree once a round.

Beside it errands, which need no agreement: one at a time for each machine. Comes in: what a machine is to do, as
something that can be sent and opened there, and where a training begins. Goes out: the mean of the copies, round by
round, and what errands have come to. It knows no network and no ONNX.
"""
