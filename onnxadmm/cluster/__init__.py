"""A training shared among machines: each takes steps on its part of the data, and they agree once a round.

Comes in: what a machine is to do, as something that can be sent and opened there, and where a training begins.
Goes out: the mean of the copies, round by round. It knows no network and no ONNX.
"""
